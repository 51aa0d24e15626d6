// Stands in for kernels/cuda/peer_access.cc where there is no CUDA compiler.

#include "kernels/peer_access.h"

namespace trireme {
namespace {

absl::Status none() { return absl::UnimplementedError("peer access: this build has no CUDA"); }

}  // namespace

absl::StatusOr<std::string> gpu_address(int) { return none(); }

absl::StatusOr<bool> can_access_peer(int, const std::string&) { return none(); }

}  // namespace trireme
