#pragma once
// How kernels are started.

#include <cuda_runtime.h>

#include <cstddef>
#include <utility>

#include "kernels/cuda/runtime.h"

namespace trireme::cuda {

/// Enqueues `kernel`, named `name` in errors. More than 48 KiB of dynamic shared memory is asked for where
/// needed.
template <typename... Parameters, typename... Arguments>
void launch(cudaStream_t stream, const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block,
            size_t shared_bytes, Arguments&&... arguments) {
  constexpr size_t kFreelyAvailable = 48 * 1024;
  if (shared_bytes > kFreelyAvailable)
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shared_bytes)),
          name, __FILE__, __LINE__);
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  check(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...), name, __FILE__, __LINE__);
}

}  // namespace trireme::cuda
