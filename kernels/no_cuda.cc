// Stands in for kernels/cuda where there is no CUDA compiler.

#include "kernels/backend.h"

namespace trireme {

absl::StatusOr<std::unique_ptr<Backend>> create_cuda_backend(const CudaOptions&) {
  return absl::UnimplementedError(
      "CUDA backend: this build has none; configure with -DTRIREME_CUDA=ON where nvcc is on PATH");
}

int num_cuda_devices() { return 0; }

}  // namespace trireme
