// Which tokens a sequence holds and how often: what penalties read.

#include <algorithm>
#include <cstring>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/mask.cuh"

namespace trireme::cuda {
namespace {

constexpr int kThreads = 256;

unsigned num_blocks(int64_t count) { return static_cast<unsigned>((count + kThreads - 1) / kThreads); }

__device__ __forceinline__ int64_t thread_index() {
  return static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
}

__global__ void mark_prompt_kernel(int* counts, const int* ids, int64_t num_ids) {
  const int64_t i = thread_index();
  if (mask(i < num_ids)) counts[ids[i]] = 1;
}

__global__ void count_output_kernel(int* counts, const int* ids, int64_t num_ids) {
  const int64_t i = thread_index();
  if (mask(i < num_ids)) atomicAdd(&counts[ids[i]], 2);
}

__global__ void count_tokens_kernel(int* counts, int64_t stride, const int* slots, const int* ids,
                                    int64_t num_ids) {
  const int64_t i = thread_index();
  if (!mask(i < num_ids) || !mask(slots[i] >= 0) || !mask(ids[i] >= 0)) return;
  atomicAdd(&counts[slots[i] * stride + ids[i]], 2);
}

/// Brings ids of the host to the device, a part at a time, and starts `kernel` on each.
void for_all_ids(const Stream& stream, Staging& staging, const char* name,
                 void (*kernel)(int*, const int*, int64_t), int* counts, const int32_t* ids,
                 int64_t num_ids) {
  constexpr int64_t kPart = 8192;
  for (int64_t begin = 0; begin < num_ids; begin += kPart) {
    const int64_t count = std::min(kPart, num_ids - begin);
    const Staging::Slot slot = staging.take(static_cast<size_t>(count) * sizeof(int32_t));
    std::memcpy(slot.host, ids + begin, static_cast<size_t>(count) * sizeof(int32_t));
    staging.commit(slot);
    launch(stream, name, kernel, dim3(num_blocks(count)), dim3(kThreads), 0, counts,
           reinterpret_cast<const int*>(slot.device), count);
  }
}

}  // namespace

void CudaBackend::do_set_token_counts(const Tensor& counts, int64_t slot, const int32_t* prompt_ids,
                                      int64_t num_prompt, const int32_t* output_ids, int64_t num_output) {
  const Stream& stream = queue();
  int* const row = counts.as<int>() + slot * counts.row_stride;
  CUDA_CHECK(cudaMemsetAsync(row, 0, static_cast<size_t>(counts.cols) * sizeof(int), stream));
  for_all_ids(stream, staging_, "mark_prompt", mark_prompt_kernel, row, prompt_ids, num_prompt);
  for_all_ids(stream, staging_, "count_output", count_output_kernel, row, output_ids, num_output);
}

void CudaBackend::do_count_tokens(const Tensor& counts, const int32_t* slots, const Tensor& ids) {
  const Stream& stream = queue();
  launch(stream, "count_tokens", count_tokens_kernel, dim3(num_blocks(ids.size())), dim3(kThreads), 0,
         counts.as<int>(), counts.row_stride, slots, ids.as<const int>(), ids.size());
}

}  // namespace trireme::cuda
