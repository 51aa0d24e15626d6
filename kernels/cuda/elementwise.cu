// Sums, gated activations, and rows moved from table to batch.

#include <algorithm>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/mask.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/vector.cuh"

namespace trireme::cuda {
namespace {

constexpr int kThreads = 256;

/// One block for `kThreads * width` columns of one row.
dim3 grid_of(const Tensor& out, int width) {
  const int64_t per_block = int64_t{kThreads} * width;
  return dim3(static_cast<unsigned>(out.rows), static_cast<unsigned>((out.cols + per_block - 1) / per_block));
}

template <int kWidth>
__device__ __forceinline__ int first_column() {
  return static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x) * kWidth;
}

template <typename T, int kWidth>
__global__ void add_kernel(T* x, int64_t x_stride, const T* y, int64_t y_stride, int cols) {
  const int c = first_column<kWidth>();
  if (!mask(c < cols)) return;
  const int64_t row = blockIdx.x;
  float a[kWidth], b[kWidth];
  load(x + row * x_stride + c, a);
  load(y + row * y_stride + c, b);
#pragma unroll
  for (int i = 0; i < kWidth; ++i) a[i] += b[i];
  store(x + row * x_stride + c, a);
}

template <typename T, int kWidth>
__global__ void silu_mul_kernel(const T* gate_up, int64_t stride, T* out, int64_t out_stride, int cols) {
  const int c = first_column<kWidth>();
  if (!mask(c < cols)) return;
  const int64_t row = blockIdx.x;
  float gate[kWidth], up[kWidth];
  load(gate_up + row * stride + c, gate);
  load(gate_up + row * stride + cols + c, up);
#pragma unroll
  for (int i = 0; i < kWidth; ++i) gate[i] = gate[i] / (1.0f + __expf(-gate[i])) * up[i];
  store(out + row * out_stride + c, gate);
}

/// out[t] = table[ids[t] - first_row], zeros outside of [0, num_rows).
template <typename S, typename T, int kWidth>
__global__ void gather_kernel(const int* ids, const S* table, int64_t stride, int64_t first_row,
                              int64_t num_rows, T* out, int64_t out_stride, int cols) {
  const int c = first_column<kWidth>();
  if (!mask(c < cols)) return;
  const int64_t t = blockIdx.x, row = ids[t] - first_row;
  float values[kWidth] = {};
  if (mask(row >= 0) && mask(row < num_rows)) load(table + row * stride + c, values);
  store(out + t * out_stride + c, values);
}

template <typename S, typename T>
void gather(cudaStream_t stream, const char* name, const Tensor& ids, const Tensor& table, int64_t first_row,
            const Tensor& out) {
  constexpr int kWidth = std::min(kPackWidth<S>, kPackWidth<T>);
  const int cols = static_cast<int>(out.cols);
  const auto start = [&](auto kernel, int width) {
    launch(stream, name, kernel, grid_of(out, width), dim3(kThreads), 0, ids.as<const int>(),
           table.as<const S>(), table.row_stride, first_row, table.rows, out.as<T>(), out.row_stride, cols);
  };
  if (rows_aligned(table, kWidth) && rows_aligned(out, kWidth))
    start(gather_kernel<S, T, kWidth>, kWidth);
  else
    start(gather_kernel<S, T, 1>, 1);
}

}  // namespace

void add(cudaStream_t stream, const Tensor& x, const Tensor& y) {
  with_element_type(x.dtype, [&](auto element) {
    using T = decltype(element);
    constexpr int kWidth = kPackWidth<T>;
    const auto start = [&](auto kernel, int width) {
      launch(stream, "add", kernel, grid_of(x, width), dim3(kThreads), 0, x.as<T>(), x.row_stride,
             y.as<const T>(), y.row_stride, static_cast<int>(x.cols));
    };
    if (rows_aligned(x, kWidth) && rows_aligned(y, kWidth))
      start(add_kernel<T, kWidth>, kWidth);
    else
      start(add_kernel<T, 1>, 1);
  });
}

void silu_mul(cudaStream_t stream, const Tensor& gate_up, const Tensor& out) {
  with_element_type(out.dtype, [&](auto element) {
    using T = decltype(element);
    constexpr int kWidth = kPackWidth<T>;
    const auto start = [&](auto kernel, int width) {
      launch(stream, "silu_mul", kernel, grid_of(out, width), dim3(kThreads), 0, gate_up.as<const T>(),
             gate_up.row_stride, out.as<T>(), out.row_stride, static_cast<int>(out.cols));
    };
    const bool aligned = rows_aligned(gate_up.slice_cols(0, out.cols), kWidth) &&
                         rows_aligned(gate_up.slice_cols(out.cols, out.cols), kWidth) &&
                         rows_aligned(out, kWidth);
    if (aligned)
      start(silu_mul_kernel<T, kWidth>, kWidth);
    else
      start(silu_mul_kernel<T, 1>, 1);
  });
}

void embedding(cudaStream_t stream, const Tensor& ids, const Tensor& table, int64_t first_row,
               const Tensor& out) {
  with_element_type(table.dtype, [&](auto of_table) {
    with_element_type(out.dtype, [&](auto of_out) {
      gather<decltype(of_table), decltype(of_out)>(stream, "embedding", ids, table, first_row, out);
    });
  });
}

void gather_rows(cudaStream_t stream, const Tensor& x, const Tensor& row_ids, const Tensor& out) {
  with_element_type(x.dtype, [&](auto element) {
    using T = decltype(element);
    gather<T, T>(stream, "gather_rows", row_ids, x, 0, out);
  });
}

void CudaBackend::do_add(const Tensor& x, const Tensor& y) { cuda::add(queue(), x, y); }

void CudaBackend::do_silu_mul(const Tensor& gate_up, const Tensor& out) {
  cuda::silu_mul(queue(), gate_up, out);
}

void CudaBackend::do_embedding(const Tensor& ids, const Weight& table, int64_t first_row, const Tensor& out) {
  cuda::embedding(queue(), ids, static_cast<const CudaWeight&>(table).tensor(), first_row, out);
}

void CudaBackend::do_gather_rows(const Tensor& x, const Tensor& row_ids, const Tensor& out) {
  cuda::gather_rows(queue(), x, row_ids, out);
}

}  // namespace trireme::cuda
