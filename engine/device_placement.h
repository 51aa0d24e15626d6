#pragma once
// Which GPU of its host a rank takes, and how many others take the same one.

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace trireme {

struct DevicePlacement {
  int device = 0;       // ordinal among the GPUs that the process sees
  int num_sharers = 1;  // ranks of the job that are put on it, this one included
};

/// `local_rank` of `local_ranks`: this rank among those of its job on this host, which take the GPUs from
/// number `first` on, of `num_devices`. With a GPU for each, each has its own; else, where they may share,
/// they are dealt out in turn. FAILED_PRECONDITION naming ranks, GPUs and the way out where they may not.
/// Aborts where there is no GPU `first`. Pure.
absl::StatusOr<DevicePlacement> place_on_device(int first, int local_rank, int local_ranks, int num_devices,
                                                bool may_share);

/// The GPU that `devices` names for rank `rank` of a job, whose ranks are on `hosts`. INVALID_ARGUMENT where
/// it does not name one for each. Pure.
absl::StatusOr<DevicePlacement> place_as_named(const std::vector<int>& devices,
                                               const std::vector<std::string>& hosts, int rank);

/// Where a rank runs and what it sees there.
struct RankSight {
  std::string host;
  std::vector<std::string> gpus;  // their addresses on the host's bus, by ordinal
};

/// The GPU of rank `rank` where the ranks of its host do not see the same ones, since whoever started them
/// showed each its own (CUDA_VISIBLE_DEVICES): those that see the same are placed among themselves as by
/// place_on_device() from `first` on, and whoever comes to the same address shares it. nullopt where all see
/// the same, or this one none. FAILED_PRECONDITION where ranks share and may not. Pure.
absl::StatusOr<std::optional<DevicePlacement>> place_by_sight(int first, const std::vector<RankSight>& ranks,
                                                              int rank, bool may_share);

}  // namespace trireme
