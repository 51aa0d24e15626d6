#pragma once
// Where the ranks of a job stand, and whether they share processors.

#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/parallel/process_group.h"

namespace trireme::client {

struct RankPlace {
  std::string host;
  std::set<int> cores;  // that the rank may run on
};

struct Placement {
  int num_hosts = 0;
  int num_cores = 0;  // of all hosts, that any rank may run on
  /// Some ranks have fewer cores than they are: their times are those of taking turns.
  bool oversubscribed = false;
};

/// Of the calling thread.
absl::StatusOr<RankPlace> this_place();

Placement judge_placement(const std::vector<RankPlace>& places);

/// Collective over `world`; the placement is known on rank 0.
absl::StatusOr<Placement> gather_placement(HostGroup& world, std::chrono::milliseconds deadline);

}  // namespace trireme::client
