#pragma once
// Launches of kernels in tests.

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cstddef>

namespace trireme::testing {

inline cudaLaunchConfig_t config(dim3 grid, dim3 block, size_t shared_bytes = 0) {
  cudaLaunchConfig_t result;
  result.gridDim = grid;
  result.blockDim = block;
  result.dynamicSmemBytes = shared_bytes;
  return result;
}

template <typename Kernel, typename... Arguments>
void run(Kernel kernel, const cudaLaunchConfig_t& how, Arguments... arguments) {
  ASSERT_EQ(cudaLaunchKernelEx(&how, kernel, arguments...), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(how.stream), cudaSuccess);
}

}  // namespace trireme::testing
