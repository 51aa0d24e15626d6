#include "kernels/cuda/last_tokens.h"

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/mask.cuh"

namespace trireme::cuda {
namespace {

constexpr int kThreads = 256;

dim3 grid_of(int64_t count) { return dim3(static_cast<unsigned>((count + kThreads - 1) / kThreads)); }

__device__ __forceinline__ int64_t element() { return int64_t{blockIdx.x} * kThreads + threadIdx.x; }

__global__ void __launch_bounds__(kThreads) resolve_kernel(const int* last_tokens, int* ids, int64_t count) {
  const int64_t i = element();
  if (mask(i < count) && mask(ids[i] < 0)) ids[i] = last_tokens[-1 - ids[i]];
}

__global__ void __launch_bounds__(kThreads)
    keep_kernel(const int* ids, const int* slots, int* last_tokens, int64_t count) {
  const int64_t i = element();
  if (mask(i < count) && mask(slots[i] >= 0)) last_tokens[slots[i]] = max(ids[i], 0);
}

}  // namespace

void resolve_last_tokens(cudaStream_t stream, const Tensor& last_tokens, const Tensor& ids) {
  launch(stream, "resolve_last_tokens", resolve_kernel, grid_of(ids.size()), dim3(kThreads), 0,
         last_tokens.as<const int>(), ids.as<int>(), ids.size());
}

void keep_last_tokens(cudaStream_t stream, const Tensor& ids, const Tensor& slots,
                      const Tensor& last_tokens) {
  launch(stream, "keep_last_tokens", keep_kernel, grid_of(ids.size()), dim3(kThreads), 0, ids.as<const int>(),
         slots.as<const int>(), last_tokens.as<int>(), ids.size());
}

void CudaBackend::do_resolve_last_tokens(const Tensor& last_tokens, const Tensor& ids) {
  cuda::resolve_last_tokens(queue(), last_tokens, ids);
}

void CudaBackend::do_keep_last_tokens(const Tensor& ids, const Tensor& slots, const Tensor& last_tokens) {
  cuda::keep_last_tokens(queue(), ids, slots, last_tokens);
}

void CudaBackend::do_copy(const Tensor& from, const Tensor& to) {
  const size_t width = dtype_bytes(to.dtype);
  const auto bytes = [&](int64_t elements) { return static_cast<size_t>(elements) * width; };
  CUDA_CHECK(cudaMemcpy2DAsync(to.data, bytes(to.row_stride), from.data, bytes(from.row_stride),
                               bytes(to.cols), static_cast<size_t>(to.rows), cudaMemcpyDeviceToDevice,
                               queue()));
}

}  // namespace trireme::cuda
