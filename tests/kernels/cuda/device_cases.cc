// The CUDA backend on a device. Where there is none, each case says so and is skipped.

#include <cstdlib>
#include <string_view>

#include "tests/kernels/backend_fixture.h"

namespace trireme::testing {

std::vector<BackendCase> available_backends() {
  return {{"Cuda_f32", [] { return create_cuda_backend({.activation_dtype = DType::f32}); }},
          {"Cuda_bf16", [] { return create_cuda_backend({.activation_dtype = DType::bf16}); }},
          {"Cuda_f16", [] { return create_cuda_backend({.activation_dtype = DType::f16}); }}};
}

std::vector<BackendCase> backends_of_one_dtype() { return {available_backends()[1]}; }

/// Where a tool looks at each access: see sanitizer.sh.
bool backends_are_slow() {
  const char* const sizes = std::getenv("TRIREME_TEST_SIZES");
  return sizes != nullptr && std::string_view(sizes) == "small";
}

}  // namespace trireme::testing
