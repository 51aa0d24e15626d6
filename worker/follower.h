#pragma once
// The loop of every rank of a replica but the leader.

#include <chrono>

#include "absl/status/status.h"
#include "worker/step_engine.h"

namespace trireme::worker {

/// Runs the leader's plans until the stop plan (OK). The leader shows each second that it lives, so a
/// follower that hears nothing for `deadline` has lost it: UNAVAILABLE. Any other error is the engine's. The
/// process must end in both cases.
absl::Status run_follower(StepFollower& engine, std::chrono::milliseconds deadline = std::chrono::seconds(3));

}  // namespace trireme::worker
