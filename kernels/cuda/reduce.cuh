#pragma once
// Sums whose order depends on the number of threads alone: the same bits whatever else the grid does.

#include <cuda_runtime.h>

namespace trireme::cuda {

inline constexpr int kWarpSize = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

/// The sum over the warp, on every lane.
__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2)
    value += __shfl_xor_sync(kAllLanes, value, distance);
  return value;
}

/// The sum over the block, on every thread. `scratch`: shared, one float for each warp; free again when all
/// threads have passed another barrier. blockDim.x is a multiple of 32.
__device__ __forceinline__ float block_sum(float value, float* scratch) {
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize,
            num_warps = static_cast<int>(blockDim.x) / kWarpSize;
  value = warp_sum(value);
  if (threadIdx.x % kWarpSize == 0) scratch[warp] = value;
  __syncthreads();
  float sum = 0;
  for (int i = 0; i < num_warps; ++i) sum += scratch[i];
  return sum;
}

}  // namespace trireme::cuda
