#pragma once

#include <cuda_runtime.h>

namespace trireme::cuda {

/// The block's dynamic shared memory, 128-byte aligned. All shared memory of our kernels is dynamic: its size
/// is then known where the kernel is started, and checked where it runs on the processor.
template <typename T>
__device__ __forceinline__ T* dynamic_shared() {
#ifdef TRIREME_SIMT
  return static_cast<T*>(simt::shared_memory());
#else
  extern __shared__ __align__(128) unsigned char trireme_dynamic_shared[];
  return reinterpret_cast<T*>(trireme_dynamic_shared);
#endif
}

}  // namespace trireme::cuda
