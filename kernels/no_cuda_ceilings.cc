// Stands in for kernels/cuda/ceilings.cc where there is no CUDA compiler.

#include "kernels/ceilings.h"

namespace trireme {

absl::StatusOr<std::unique_ptr<Ceilings>> create_cuda_ceilings(int, size_t) {
  return absl::UnimplementedError("ceilings of a GPU: this build has no CUDA");
}

}  // namespace trireme
