// Random weights by counting: each thread hashes the places of its elements and looks up a quantile.

#include "kernels/cuda/draw.h"

#include <algorithm>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/mask.cuh"
#include "kernels/cuda/shared.cuh"
#include "kernels/cuda/vector.cuh"

namespace trireme::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = 1024;  // beyond what a device runs at once
static_assert(NormalQuantiles::kCount % kThreads == 0, "all threads fill the table, in whole rounds");

template <typename T>
__global__ void __launch_bounds__(kThreads)
    draw_kernel(uint64_t key, uint64_t first, uint64_t tensor_cols, const float* quantiles, T* out,
                int64_t out_stride, int64_t rows, int64_t cols) {
  float* table = dynamic_shared<float>();
  for (int i = static_cast<int>(threadIdx.x); i < static_cast<int>(NormalQuantiles::kCount); i += kThreads)
    table[i] = quantiles[i];
  __syncthreads();
  for (int64_t row = blockIdx.x; mask_tail(row, rows, gridDim.x); row += gridDim.x) {
    const uint64_t begin = first + static_cast<uint64_t>(row) * tensor_cols;
    for (int64_t c = threadIdx.x; mask_tail(c, cols, kThreads); c += kThreads)
      out[row * out_stride + c] = from_float<T>(table[drawn_quantile(key, begin + static_cast<uint64_t>(c))]);
  }
}

}  // namespace

void draw(cudaStream_t stream, const DrawnPlace& place, const float* quantiles, const Tensor& out) {
  if (out.rows == 0 || out.cols == 0) return;
  with_element_type(out.dtype, [&](auto element) {
    using T = decltype(element);
    launch(stream, "draw", draw_kernel<T>, dim3(static_cast<unsigned>(std::min(out.rows, kMaxBlocks))),
           dim3(kThreads), NormalQuantiles::kCount * sizeof(float), place.key,
           static_cast<uint64_t>(place.row * place.tensor_cols + place.col),
           static_cast<uint64_t>(place.tensor_cols), quantiles, out.as<T>(), out.row_stride, out.rows,
           out.cols);
  });
}

}  // namespace trireme::cuda
