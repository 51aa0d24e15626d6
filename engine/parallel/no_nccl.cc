// Stands in for nccl_group.cc in builds without NCCL.

#include "engine/parallel/process_group.h"

namespace trireme {

bool has_nccl() { return false; }

absl::StatusOr<std::unique_ptr<ProcessGroup>> create_nccl_process_group(HostGroup&, Backend&,
                                                                        std::chrono::milliseconds) {
  return absl::UnimplementedError("this build has no NCCL (TRIREME_NCCL)");
}

}  // namespace trireme
