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

}  // namespace trireme
