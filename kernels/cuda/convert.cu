// Pieces of weights, from the checkpoint's dtype to the weight's.

#include <algorithm>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/mask.cuh"
#include "kernels/cuda/vector.cuh"
#include "kernels/cuda/weight.h"

namespace trireme::cuda {
namespace {

constexpr int kThreads = 256;

/// One block to a row at a time; the source is read over the bus, each element once.
template <typename S, typename T>
__global__ void __launch_bounds__(kThreads)
    convert_kernel(const S* source, T* out, int64_t out_stride, int64_t rows, int64_t cols) {
  for (int64_t row = blockIdx.x; mask_tail(row, rows, gridDim.x); row += gridDim.x) {
    for (int64_t c = threadIdx.x; mask_tail(c, cols, kThreads); c += kThreads)
      out[row * out_stride + c] = from_float<T>(to_float(source[row * cols + c]));
  }
}

}  // namespace

void convert_rows(cudaStream_t stream, const void* source, DType source_dtype, const Tensor& out) {
  if (source_dtype == out.dtype) {
    const size_t element = dtype_bytes(out.dtype), row_bytes = static_cast<size_t>(out.cols) * element;
    CUDA_CHECK(cudaMemcpy2DAsync(out.data, static_cast<size_t>(out.row_stride) * element, source, row_bytes,
                                 row_bytes, static_cast<size_t>(out.rows), cudaMemcpyHostToDevice, stream));
    return;
  }
  with_element_type(source_dtype, [&](auto of_source) {
    with_element_type(out.dtype, [&](auto of_out) {
      using S = decltype(of_source);
      using T = decltype(of_out);
      launch(stream, "convert", convert_kernel<S, T>,
             dim3(static_cast<unsigned>(std::min<int64_t>(out.rows, 1024))), dim3(kThreads), 0,
             static_cast<const S*>(source), out.as<T>(), out.row_stride, out.rows, out.cols);
    });
  });
}

}  // namespace trireme::cuda
