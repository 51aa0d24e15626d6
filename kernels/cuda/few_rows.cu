// A warp streams one row of the weight, or a few rows side by side, past all rows of x, which stay in the
// caches.

#include "kernels/cuda/few_rows.h"

#include <utility>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/mask.cuh"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/vector.cuh"

namespace trireme::cuda {
namespace {

constexpr int kWarps = 4;
// Loads of 16 bytes of the weight that a lane has under way: 2 KiB to a warp.
constexpr int kLoads = 4;

/// What a lane multiplies at a time: kLoads / kFeatures steps of each of the warp's features.
template <typename T, int kWidth, int kFeatures>
struct WeightBatch {
  static constexpr int kSteps = kLoads / kFeatures;
  Pack<T, kWidth> packs[kSteps][kFeatures];

  __device__ __forceinline__ void load(const T* const (&rows)[kFeatures], int k) {
#pragma unroll
    for (int s = 0; s < kSteps; ++s)
#pragma unroll
      for (int f = 0; f < kFeatures; ++f)
        packs[s][f] = *reinterpret_cast<const Pack<T, kWidth>*>(rows[f] + k + s * kWarpSize * kWidth);
  }
};

template <typename T, int kWidth, int kFeatures, int kRows>
__device__ __forceinline__ void accumulate(const Pack<T, kWidth> (&w)[kFeatures], const T* x,
                                           int64_t x_stride, float (&sums)[kFeatures][kRows]) {
#pragma unroll
  for (int m = 0; m < kRows; ++m) {
    float values[kWidth];
    load(x + m * x_stride, values);
#pragma unroll
    for (int f = 0; f < kFeatures; ++f)
#pragma unroll
      for (int i = 0; i < kWidth; ++i)
        sums[f][m] = __fmaf_rn(to_float(w[f].values[i]), values[i], sums[f][m]);
  }
}

/// Blocks that a multiprocessor must have room for; as many as go without spilled registers.
constexpr int least_blocks(size_t element_bytes, int num_rows) {
  if (element_bytes == 4) return 1;
  return num_rows == 1 ? 7 : (num_rows <= 3 ? 5 : 3);
}

template <typename T, int kWidth, int kFeatures, int kRows>
__global__ void __launch_bounds__(kWarps* kWarpSize, least_blocks(sizeof(T), kRows))
    few_rows_kernel(const T* x, int64_t x_stride, const T* weight, int64_t weight_stride, const float* bias,
                    void* out, bool out_is_f32, int64_t out_stride, int in_features, int out_features) {
  using Batch = WeightBatch<T, kWidth, kFeatures>;
  constexpr int kStep = kWarpSize * kWidth, kBatch = Batch::kSteps * kStep;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int first =
      (static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / kWarpSize) * kFeatures;
  if (first >= out_features) return;
  const T* rows[kFeatures];
#pragma unroll
  for (int f = 0; f < kFeatures; ++f)
    rows[f] = weight + mask_min(first + f, out_features - 1) * weight_stride;

  float sums[kFeatures][kRows] = {};
  int k = lane * kWidth;
  const int num_batches = in_features / kBatch;
  // With few rows of x there are registers to load the next batch while this one is multiplied; with more of
  // them, other warps load meanwhile.
  constexpr bool kAhead = kRows <= 2;
  Batch now{}, next{};
  if (kAhead && mask(num_batches > 0)) now.load(rows, k);
#pragma unroll 1
  for (int batch = 1; batch <= num_batches; ++batch) {
    if (!kAhead) now.load(rows, k);
    if (kAhead && mask(batch < num_batches)) next.load(rows, k + kBatch);
#pragma unroll
    for (int s = 0; s < Batch::kSteps; ++s) accumulate(now.packs[s], x + k + s * kStep, x_stride, sums);
    if (kAhead) now = next;
    k += kBatch;
  }
  for (; mask_tail(k, in_features, kStep); k += kStep) {
    Pack<T, kWidth> w[kFeatures];
#pragma unroll
    for (int f = 0; f < kFeatures; ++f) w[f] = *reinterpret_cast<const Pack<T, kWidth>*>(rows[f] + k);
    accumulate(w, x + k, x_stride, sums);
  }
#pragma unroll
  for (int f = 0; f < kFeatures; ++f) {
    const int n = first + f;
#pragma unroll
    for (int m = 0; m < kRows; ++m) {
      float sum = warp_sum(sums[f][m]);
      if (lane != m || !mask(n < out_features)) continue;
      if (bias != nullptr) sum += bias[n];
      const int64_t place = m * out_stride + n;
      if (out_is_f32)
        static_cast<float*>(out)[place] = sum;
      else
        static_cast<T*>(out)[place] = from_float<T>(sum);
    }
  }
}

template <typename T, int kWidth, int kFeatures, int kRows>
void start_with(cudaStream_t stream, const Tensor& x, const Tensor& weight, const Tensor& bias,
                const Tensor& out) {
  constexpr int64_t kPerBlock = kWarps * kFeatures;
  launch(stream, "matmul_few_rows", few_rows_kernel<T, kWidth, kFeatures, kRows>,
         dim3(static_cast<unsigned>((weight.rows + kPerBlock - 1) / kPerBlock)), dim3(kWarps * kWarpSize), 0,
         x.as<const T>(), x.row_stride, weight.as<const T>(), weight.row_stride, bias.as<const float>(),
         out.data, out.dtype == DType::f32, out.row_stride, static_cast<int>(x.cols),
         static_cast<int>(weight.rows));
}

/// Several rows of x are read from the caches and widened once for each warp: with several features to a
/// warp that is less work, and fewer warps. Enough of them must be left to keep the memory busy.
template <typename T, int kWidth, int kRows>
void start(cudaStream_t stream, const Tensor& x, const Tensor& weight, const Tensor& bias,
           const Tensor& out) {
  if constexpr (sizeof(T) == 2 && kWidth > 1 && kRows >= 5) {
    if (weight.rows >= kFourFeatures) return start_with<T, kWidth, 4, kRows>(stream, x, weight, bias, out);
  }
  if constexpr (sizeof(T) == 2 && kWidth > 1 && kRows >= 2) {
    if (weight.rows >= kTwoFeatures) return start_with<T, kWidth, 2, kRows>(stream, x, weight, bias, out);
  }
  start_with<T, kWidth, 1, kRows>(stream, x, weight, bias, out);
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
