// One warp to an output feature: it streams a row of the weight past all rows of x, which stay in the caches.

#include "kernels/cuda/few_rows.h"

#include <utility>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/vector.cuh"

namespace trireme::cuda {
namespace {

constexpr int kWarps = 4;
// Loads of 16 bytes that a lane has under way: 4 warps of 2 KiB to a block, 8 blocks to a multiprocessor are
// 64 KiB.
constexpr int kUnroll = 4;

template <typename T, int kWidth, int kRows>
__device__ __forceinline__ void accumulate(const float (&w)[kWidth], const T* x, int64_t x_stride,
                                           float (&sums)[kRows]) {
#pragma unroll
  for (int m = 0; m < kRows; ++m) {
    float values[kWidth];
    load(x + m * x_stride, values);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) sums[m] = __fmaf_rn(w[i], values[i], sums[m]);
  }
}

template <typename T, int kWidth, int kRows>
__global__ void __launch_bounds__(kWarps* kWarpSize)
    few_rows_kernel(const T* x, int64_t x_stride, const T* weight, int64_t weight_stride, const float* bias,
                    void* out, bool out_is_f32, int64_t out_stride, int in_features, int out_features) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int n = static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / kWarpSize;
  if (n >= out_features) return;
  const T* row = weight + n * weight_stride;
  constexpr int kStep = kWarpSize * kWidth;
  float sums[kRows] = {};
  int k = lane * kWidth;
  for (; k + (kUnroll - 1) * kStep < in_features; k += kUnroll * kStep) {
    float w[kUnroll][kWidth];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) load(row + k + u * kStep, w[u]);
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) accumulate(w[u], x + k + u * kStep, x_stride, sums);
  }
  for (; k < in_features; k += kStep) {
    float w[kWidth];
    load(row + k, w);
    accumulate(w, x + k, x_stride, sums);
  }
#pragma unroll
  for (int m = 0; m < kRows; ++m) {
    float sum = warp_sum(sums[m]);
    if (bias != nullptr) sum += bias[n];
    if (lane != m) continue;
    const int64_t place = m * out_stride + n;
    if (out_is_f32)
      static_cast<float*>(out)[place] = sum;
    else
      static_cast<T*>(out)[place] = from_float<T>(sum);
  }
}

template <typename T, int kWidth, int kRows>
void start(cudaStream_t stream, const Tensor& x, const Tensor& weight, const Tensor& bias,
           const Tensor& out) {
  const int out_features = static_cast<int>(weight.rows);
  launch(stream, "matmul_few_rows", few_rows_kernel<T, kWidth, kRows>,
         dim3(static_cast<unsigned>((out_features + kWarps - 1) / kWarps)), dim3(kWarps * kWarpSize), 0,
         x.as<const T>(), x.row_stride, weight.as<const T>(), weight.row_stride, bias.as<const float>(),
         out.data, out.dtype == DType::f32, out.row_stride, static_cast<int>(x.cols), out_features);
}

template <typename T, int kWidth, int... kRows>
void start_for(cudaStream_t stream, const Tensor& x, const Tensor& weight, const Tensor& bias,
               const Tensor& out, std::integer_sequence<int, kRows...>) {
  // One instance for each number of rows: none reads a row that is not there.
  ((x.rows == kRows + 1 ? start<T, kWidth, kRows + 1>(stream, x, weight, bias, out) : void()), ...);
}

}  // namespace

void matmul_few_rows(cudaStream_t stream, const Tensor& x, const Tensor& weight, const Tensor& bias,
                     const Tensor& out) {
  TRIREME_CHECK(x.rows <= kMaxFewRows);
  with_element_type(x.dtype, [&](auto element) {
    using T = decltype(element);
    constexpr int kWidth = kPackWidth<T>;
    using AllRows = std::make_integer_sequence<int, kMaxFewRows>;
    if (rows_aligned(x, kWidth) && rows_aligned(weight, kWidth))
      start_for<T, kWidth>(stream, x, weight, bias, out, AllRows());
    else
      start_for<T, 1>(stream, x, weight, bias, out, AllRows());
  });
}

}  // namespace trireme::cuda
