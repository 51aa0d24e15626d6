// Root-mean-square normalization, alone and behind a residual connection. Source: arXiv:1910.07467.

#include <algorithm>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/mask.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/shared.cuh"
#include "kernels/cuda/vector.cuh"

namespace trireme::cuda {
namespace {

constexpr int kMaxThreads = 1024;  // rows of up to 8192 16-bit elements in one go

/// One block normalizes one row of `cols` elements, kWidth at a time. With kResidual the row is residual + x,
/// which is kept in `residual`.
template <typename T, int kWidth, bool kResidual>
__global__ void __launch_bounds__(kMaxThreads)
    rms_norm_kernel(const T* x, int64_t x_stride, T* residual, int64_t residual_stride, const float* weight,
                    float eps, T* out, int64_t out_stride, int cols) {
  const int64_t row = blockIdx.x;
  const int begin = static_cast<int>(threadIdx.x) * kWidth, step = static_cast<int>(blockDim.x) * kWidth;
  x += row * x_stride;
  out += row * out_stride;
  if (kResidual) residual += row * residual_stride;
  // What is normalized, after the first pass.
  const T* source = kResidual ? residual : x;
  // A thread's first columns stay in registers, and their weights come while the row is summed: with few rows
  // nothing else hides what a second round trip to memory takes.
  float first[kWidth] = {}, first_scales[kWidth] = {};
  if (mask(begin < cols)) load(weight + begin, first_scales);
  float squares = 0;
  for (int c = begin; mask_tail(c, cols, step); c += step) {
    float values[kWidth];
    load(x + c, values);
    if (kResidual) {
      float old[kWidth];
      load(residual + c, old);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) values[i] = to_float(from_float<T>(old[i] + values[i]));
      store(residual + c, values);
    }
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      squares += values[i] * values[i];
      if (c == begin) first[i] = values[i];
    }
  }
  squares = block_sum(squares, dynamic_shared<float>());
  const float factor = rsqrtf(squares / static_cast<float>(cols) + eps);
  if (!mask(begin < cols)) return;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) first[i] *= factor * first_scales[i];
  store(out + begin, first);
  // Of the others each thread reads again what it read or wrote itself.
  for (int c = begin + step; mask_tail(c, cols, step); c += step) {
    float values[kWidth], scales[kWidth];
    load(source + c, values);
    load(weight + c, scales);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) values[i] *= factor * scales[i];
    store(out + c, values);
  }
}

template <typename T, int kWidth>
void start(cudaStream_t stream, const Tensor& x, const Tensor* residual, const Tensor& weight, float eps,
           const Tensor& out) {
  const int cols = static_cast<int>(x.cols);
  const int needed = (cols + kWidth - 1) / kWidth;
  const int threads = std::min((needed + kWarpSize - 1) / kWarpSize * kWarpSize, kMaxThreads);
  const size_t shared_bytes = static_cast<size_t>(threads / kWarpSize) * sizeof(float);
  const dim3 grid(static_cast<unsigned>(x.rows)), block(static_cast<unsigned>(threads));
  T* const no_residual = nullptr;
  if (residual == nullptr)
    launch(stream, "rms_norm", rms_norm_kernel<T, kWidth, false>, grid, block, shared_bytes, x.as<const T>(),
           x.row_stride, no_residual, int64_t{0}, weight.as<const float>(), eps, out.as<T>(), out.row_stride,
           cols);
  else
    launch(stream, "add_rms_norm", rms_norm_kernel<T, kWidth, true>, grid, block, shared_bytes,
           x.as<const T>(), x.row_stride, residual->as<T>(), residual->row_stride, weight.as<const float>(),
           eps, out.as<T>(), out.row_stride, cols);
}

void normalize(cudaStream_t stream, const Tensor& x, const Tensor* residual, const Tensor& weight, float eps,
               const Tensor& out) {
  with_element_type(x.dtype, [&](auto element) {
    using T = decltype(element);
    constexpr int kWidth = kPackWidth<T>;
    const bool aligned = rows_aligned(x, kWidth) && rows_aligned(out, kWidth) &&
                         rows_aligned(weight, kWidth) &&
                         (residual == nullptr || rows_aligned(*residual, kWidth));
    if (aligned)
      start<T, kWidth>(stream, x, residual, weight, eps, out);
    else
      start<T, 1>(stream, x, residual, weight, eps, out);
  });
}

}  // namespace

void rms_norm(cudaStream_t stream, const Tensor& x, const Tensor& weight, float eps, const Tensor& out) {
  normalize(stream, x, nullptr, weight, eps, out);
}

void add_rms_norm(cudaStream_t stream, const Tensor& x, const Tensor& residual, const Tensor& weight,
                  float eps, const Tensor& out) {
  normalize(stream, x, &residual, weight, eps, out);
}

void CudaBackend::do_rms_norm(const Tensor& x, const Tensor& weight, float eps, const Tensor& out) {
  cuda::rms_norm(queue(), x, weight, eps, out);
}

void CudaBackend::do_add_rms_norm(const Tensor& x, const Tensor& residual, const Tensor& weight, float eps,
                                  const Tensor& out) {
  cuda::add_rms_norm(queue(), x, residual, weight, eps, out);
}

}  // namespace trireme::cuda
