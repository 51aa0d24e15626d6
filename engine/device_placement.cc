#include "engine/device_placement.h"

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

}  // namespace trireme
