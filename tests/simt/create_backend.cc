// The CUDA backend on the stand-in: a small device, so that a few sequences share it as they share a large
// one.

#include <cuda_runtime.h>
#include "absl/strings/str_cat.h"

#include "kernels/cuda/cuda_backend.h"

namespace trireme {

absl::StatusOr<std::unique_ptr<Backend>> create_cuda_backend(const CudaOptions& options) {
  if (options.activation_dtype == DType::i32)
    return absl::InvalidArgumentError("CUDA backend: activations: got i32, wanted f32, f16 or bf16");
  if (options.device != 0)
    return absl::FailedPreconditionError(
        absl::StrCat("GPU ", options.device, ": there is one, the processor"));
  CUDA_CHECK(cudaSetDevice(0));
  // How long fibers take says nothing of a device, and would be another choice in each run.
  const cuda::Device device{
      0, "the processor", 9, 0, 4, simt::max_shared_bytes(), /*measures_few_rows=*/false};
  return std::make_unique<cuda::CudaBackend>(device, options.activation_dtype);
}

int num_cuda_devices() { return 1; }

}  // namespace trireme
