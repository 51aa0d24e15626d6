#pragma once
// One process of a job, from its world to its end.

#include <chrono>

#include "engine/parallel/process_group.h"
#include "worker/exit_code.h"
#include "worker/options.h"

namespace trireme::worker {

/// Joins the other ranks, receives the plan, loads this rank's part and serves: as a leader or as a follower.
/// Collective over `world`. `started` is when the process began. Tells every error in one line on standard
/// error, on one rank. A rank that lost the others ends the process here, since it can leave nothing in
/// order.
ExitCode run_worker(const WorkerOptions& options, HostGroup& world,
                    std::chrono::steady_clock::time_point started);

}  // namespace trireme::worker
