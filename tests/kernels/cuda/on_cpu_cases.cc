// The CUDA backend, compiled for the processor.

#include <cuda_runtime.h>

#include "tests/kernels/backend_fixture.h"

namespace trireme::testing {

std::vector<BackendCase> available_backends() {
  simt::set_strict(true);
  return {{"CudaOnCpu_f32", [] { return create_cuda_backend({.activation_dtype = DType::f32}); }},
          {"CudaOnCpu_bf16", [] { return create_cuda_backend({.activation_dtype = DType::bf16}); }},
          {"CudaOnCpu_f16", [] { return create_cuda_backend({.activation_dtype = DType::f16}); }}};
}

std::vector<BackendCase> backends_of_one_dtype() { return {available_backends()[1]}; }

bool backends_are_slow() { return true; }

}  // namespace trireme::testing
