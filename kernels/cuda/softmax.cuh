#pragma once
// One block to a row of logits: its largest, and the logarithm of its softmax.

#include "kernels/cuda/mask.cuh"
#include "kernels/cuda/reduce.cuh"

namespace trireme::cuda {

inline constexpr int kRowThreads = 512;
inline constexpr int kRowWarps = kRowThreads / kWarpSize;

/// A logit and its id. Larger values come first, the lowest id among equals; NaN counts as largest.
struct Top {
  float value = -INFINITY;
  int place = 0x7fffffff;

  __device__ __forceinline__ bool is_behind(float other, int other_place) const {
    return other > value || (other != other && value == value) ||
           (other_place < place && (other == value || (other != other && value != value)));
  }
  __device__ __forceinline__ void take(float other, int other_place) {
    if (!is_behind(other, other_place)) return;
    value = other;
    place = other_place;
  }
};

/// Shared memory of a row's reductions; free again when all threads have passed another barrier.
struct RowShared {
  float values[kRowWarps];
  int places[kRowWarps];
};

/// Calls body(x[i], i) for what of a row is this thread's, in order of i. Several elements are asked for
/// before the first is needed, whatever `body` reads and writes.
template <typename T, typename Body>
__device__ __forceinline__ void for_each_of_thread(const T* x, int count, Body body) {
  constexpr int kAtOnce = 8;
  for (int first = static_cast<int>(threadIdx.x); first < count; first += kAtOnce * kRowThreads) {
    T values[kAtOnce];
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      const int i = first + j * kRowThreads;
      values[j] = mask(i < count) ? x[i] : T{};
    }
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      const int i = first + j * kRowThreads;
      if (mask(i < count)) body(values[j], i);
    }
  }
}

/// The first of those x[i] that `wanted(x[i], i)` asks for, on every thread; Top() where there is none.
template <typename Wanted>
__device__ Top block_top(const float* x, int count, RowShared& shared, Wanted wanted) {
  Top top;
  for_each_of_thread(x, count, [&](float value, int i) {
    if (wanted(value, i)) top.take(value, i);
  });
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
    const float value = __shfl_xor_sync(kAllLanes, top.value, distance);
    top.take(value, __shfl_xor_sync(kAllLanes, top.place, distance));
  }
  if (threadIdx.x % kWarpSize == 0) {
    shared.values[threadIdx.x / kWarpSize] = top.value;
    shared.places[threadIdx.x / kWarpSize] = top.place;
  }
  __syncthreads();
  top = Top();
  for (int w = 0; w < kRowWarps; ++w) top.take(shared.values[w], shared.places[w]);
  return top;
}

__device__ __forceinline__ Top block_top(const float* x, int count, RowShared& shared) {
  return block_top(x, count, shared, [](float, int) { return true; });
}

/// The logarithm of the sum of e^(x - maximum), on every thread; maximum is finite.
__device__ __forceinline__ float block_log_sum(const float* x, int count, float maximum, RowShared& shared) {
  float sum = 0;
  for_each_of_thread(x, count, [&](float value, int) { sum += expf(value - maximum); });
  return logf(block_sum(sum, shared.values));
}

__device__ __forceinline__ float log_probability(float logit, float maximum, float log_sum) {
  return logit - maximum - log_sum;
}

}  // namespace trireme::cuda
