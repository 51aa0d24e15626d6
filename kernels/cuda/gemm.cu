// Products of activations and weights: few rows by our own kernel or cuBLASLt, whichever was faster at the
// start, more by cuBLASLt.

#include <algorithm>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/few_rows.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/mask.cuh"
#include "kernels/cuda/vector.cuh"

namespace trireme::cuda {
namespace {

constexpr int kThreads = 256;

template <typename T>
__global__ void fill_rows_kernel(const float* bias, T* out, int64_t out_stride, int cols) {
  const int c = static_cast<int>(blockIdx.y) * kThreads + static_cast<int>(threadIdx.x);
  if (mask(c < cols)) out[blockIdx.x * out_stride + c] = from_float<T>(bias[c]);
}

}  // namespace

void fill_rows(cudaStream_t stream, const Tensor& bias, const Tensor& out) {
  with_element_type(out.dtype, [&](auto element) {
    using T = decltype(element);
    const dim3 grid(static_cast<unsigned>(out.rows),
                    static_cast<unsigned>((out.cols + kThreads - 1) / kThreads));
    launch(stream, "fill_rows", fill_rows_kernel<T>, grid, dim3(kThreads), 0, bias.as<const float>(),
           out.as<T>(), out.row_stride, static_cast<int>(out.cols));
  });
}

void CudaBackend::do_matmul(const Tensor& x, const Weight& weight, const Tensor& bias, const Tensor& out) {
  const Stream& stream = queue();
  const Tensor matrix = static_cast<const CudaWeight&>(weight).tensor();
  const bool few = x.rows <= kMaxFewRows;
  if ((!few || few_rows_.library_takes({matrix.rows, matrix.cols, x.rows, out.dtype})) &&
      Gemm::takes(x, matrix, out)) {
    // Nothing is left to do where a step's workspace was reserved.
    if (const absl::Status status = gemm_.reserve(); !status.ok())
      check_failed(__FILE__, __LINE__, std::string(status.message()));
    // The library's own bias is of the output's dtype; so is what the sum starts from here, and biases of
    // checkpoints are.
    if (bias.data != nullptr) fill_rows(stream, bias, out);
    gemm_.multiply(x, matrix, bias.data != nullptr, out);
    return;
  }
  for (int64_t row = 0; row < x.rows; row += kMaxFewRows) {
    const int64_t rows = std::min<int64_t>(kMaxFewRows, x.rows - row);
    matmul_few_rows(stream, x.slice_rows(row, rows), matrix, bias, out.slice_rows(row, rows));
  }
}

}  // namespace trireme::cuda
