#include "engine/device_placement.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"

namespace trireme {
namespace {

std::string counted(int count, const char* what) {
  return absl::StrCat(count, " ", what, count == 1 ? "" : "s");
}

}  // namespace

absl::StatusOr<DevicePlacement> place_on_device(int first, int local_rank, int local_ranks, int num_devices,
                                                bool may_share) {
  CHECK_GE(first, 0);
  CHECK_GE(local_rank, 0);
  CHECK_LT(local_rank, local_ranks);
  CHECK_LT(first, num_devices);
  const int available = num_devices - first;
  if (local_ranks <= available) return DevicePlacement{first + local_rank, 1};
  if (!may_share) {
    const std::string from = first == 0 ? "" : absl::StrCat(" from number ", first, " on");
    return absl::FailedPreconditionError(
        absl::StrCat(counted(local_ranks, "rank"), " on this host and ", counted(available, "visible GPU"),
                     from, ": NCCL wants a GPU for each rank; --collectives mpi lets ranks share one"));
  }
  const int turn = local_rank % available;
  return DevicePlacement{first + turn, (local_ranks - turn + available - 1) / available};
}

absl::StatusOr<DevicePlacement> place_as_named(const std::vector<int>& devices,
                                               const std::vector<std::string>& hosts, int rank) {
  if (devices.size() != hosts.size()) {
    return absl::InvalidArgumentError(absl::StrCat("--device: got ", devices.size(),
                                                   " GPUs, wanted one, or one for each of the job's ",
                                                   counted(static_cast<int>(hosts.size()), "rank")));
  }
  const auto place = static_cast<size_t>(rank);
  DevicePlacement placement{devices[place], 0};
  for (size_t other = 0; other < hosts.size(); ++other)
    placement.num_sharers += devices[other] == devices[place] && hosts[other] == hosts[place] ? 1 : 0;
  return placement;
}

namespace {

/// The ordinal that a rank takes among those that see the same GPUs on its host.
int turn_of(int first, const std::vector<RankSight>& ranks, size_t rank) {
  int before = 0, all = 0;
  for (size_t other = 0; other < ranks.size(); ++other) {
    if (ranks[other].host != ranks[rank].host || ranks[other].gpus != ranks[rank].gpus) continue;
    before += other < rank ? 1 : 0;
    ++all;
  }
  return place_on_device(first, before, all, static_cast<int>(ranks[rank].gpus.size()), /*may_share=*/true)
      ->device;
}

}  // namespace

absl::StatusOr<std::optional<DevicePlacement>> place_by_sight(int first, const std::vector<RankSight>& ranks,
                                                              int rank, bool may_share) {
  const auto self = static_cast<size_t>(rank);
  const auto sees_any = [&](const RankSight& sight) {
    return sight.gpus.size() > static_cast<size_t>(first);
  };
  const bool all_alike = std::all_of(ranks.begin(), ranks.end(), [&](const RankSight& other) {
    return other.host != ranks[self].host || other.gpus == ranks[self].gpus;
  });
  if (all_alike || !sees_any(ranks[self])) return std::nullopt;
  const auto address = [&](size_t of) {
    return ranks[of].gpus[static_cast<size_t>(turn_of(first, ranks, of))];
  };
  DevicePlacement placement{turn_of(first, ranks, self), 0};
  const std::string own = address(self);
  for (size_t other = 0; other < ranks.size(); ++other) {
    const bool shares =
        ranks[other].host == ranks[self].host && sees_any(ranks[other]) && address(other) == own;
    placement.num_sharers += shares ? 1 : 0;
  }
  if (may_share || placement.num_sharers == 1) return placement;
  return absl::FailedPreconditionError(absl::StrCat(
      "GPU ", own, " is that of ", placement.num_sharers, " ranks on host ", ranks[self].host,
      ", as they are shown it: NCCL wants a GPU for each rank; --collectives mpi lets ranks share one"));
}

}  // namespace trireme
