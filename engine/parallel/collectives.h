#pragma once
// Which library carries a replica's collectives, and what has to hold before one is used.

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/parallel/process_group.h"

namespace trireme {

/// "nccl" or "mpi" for a wish ("auto", "nccl", "mpi"): auto is nccl where the tensors are on CUDA devices
/// that no two ranks share and the build has NCCL, else mpi. INVALID_ARGUMENT for another wish and for nccl
/// without a CUDA device, UNIMPLEMENTED for nccl in a build without it, FAILED_PRECONDITION for nccl among
/// ranks that share devices.
absl::StatusOr<std::string> choose_collectives(const std::string& wish, const std::string& backend,
                                               bool has_nccl, bool shares_devices);

/// The group of a replica's tensors, which are in memory of `backend`; over MPI those of a device are staged
/// over host memory. Alone, a group of one. `shares_device`: this rank's device is another rank's, too.
/// Collective over `host`; `host` and `backend` must outlive it.
absl::StatusOr<std::unique_ptr<ProcessGroup>> create_process_group(const std::string& wish, HostGroup& host,
                                                                   Backend& backend, bool shares_device,
                                                                   std::chrono::milliseconds deadline);

/// Which way all-reduces of which sizes go, e.g. "one exchange up to 256 KiB, nccl 2.28.9 above".
std::string describe_all_reduce(const ProcessGroup& group);

/// What a rank tells the others before NCCL is started.
struct NcclRank {
  std::string host;
  std::string device;  // the GPU's address on its host's PCI bus
  int version = 0;     // of the library that was loaded, as ncclGetVersion() gives it
};

/// "2.28.9" for 22809.
std::string nccl_version_text(int version);

/// OK, or FAILED_PRECONDITION naming the ranks: NCCL wants a GPU for each rank, and one version on all.
absl::Status check_nccl_ranks(const std::vector<NcclRank>& ranks);

/// check_nccl_ranks() for this rank and all others, the same answer on each.
absl::Status agree_on_nccl(HostGroup& host, const NcclRank& mine, std::chrono::milliseconds deadline);

}  // namespace trireme
