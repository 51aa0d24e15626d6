// The CUDA backend on a device. Where there is none, each case says so and is skipped.

#include "tests/kernels/backend_fixture.h"

namespace trireme::testing {

std::vector<BackendCase> available_backends() {
  return {{"Cuda_f32", [] { return create_cuda_backend({.activation_dtype = DType::f32}); }},
          {"Cuda_bf16", [] { return create_cuda_backend({.activation_dtype = DType::bf16}); }},
          {"Cuda_f16", [] { return create_cuda_backend({.activation_dtype = DType::f16}); }}};
}

std::vector<BackendCase> backends_of_one_dtype() { return {available_backends()[1]}; }

bool backends_are_slow() { return false; }

}  // namespace trireme::testing
