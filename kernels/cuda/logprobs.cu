// Log probabilities of given and of the most likely tokens, one block to a row. The most likely are found one
// after the other: few are asked for, and a row stays in the cache.

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/mask.cuh"
#include "kernels/cuda/shared.cuh"
#include "kernels/cuda/softmax.cuh"

namespace trireme::cuda {
namespace {

struct Arguments {
  const float* logits;
  int64_t stride;
  int count;
  const int* num_top;
  const int* targets;
  float* target_logprobs;
  int* top_ids;
  int64_t ids_stride;
  float* top_logprobs;
  int64_t logprobs_stride;
};

__global__ void __launch_bounds__(kRowThreads) logprobs_kernel(Arguments a) {
  RowShared& shared = *dynamic_shared<RowShared>();
  const int64_t r = blockIdx.x;
  const float* x = a.logits + r * a.stride;
  Top top = block_top(x, a.count, shared);
  const bool any = isfinite(top.value);  // without a softmax there is nothing to tell
  const float maximum = top.value;
  __syncthreads();
  const float log_sum = block_log_sum(x, a.count, maximum, shared);
  const bool writes = threadIdx.x == 0;
  if (writes) {
    const int target = a.targets[r];
    a.target_logprobs[r] = any && mask(target >= 0) ? log_probability(x[target], maximum, log_sum) : NAN;
  }
  for (int i = 0; i < a.num_top[r]; ++i) {
    const bool there = any && mask(i < a.count);
    if (writes) {
      a.top_ids[r * a.ids_stride + i] = there ? top.place : -1;
      a.top_logprobs[r * a.logprobs_stride + i] = there ? log_probability(top.value, maximum, log_sum) : NAN;
    }
    if (!there || i + 1 == a.num_top[r]) continue;
    __syncthreads();
    const Top last = top;
    top = block_top(x, a.count, shared, [&](float value, int id) {
      return value < last.value || (value == last.value && id > last.place);
    });
  }
}

}  // namespace

void CudaBackend::do_logprobs(const Tensor& logits, int64_t vocab_size, const int32_t* num_top,
                              const Tensor& target_ids, const Tensor& target_logprobs, const Tensor& top_ids,
                              const Tensor& top_logprobs) {
  const Stream& stream = queue();
  const Arguments a{logits.as<const float>(),
                    logits.row_stride,
                    static_cast<int>(vocab_size),
                    num_top,
                    target_ids.as<const int>(),
                    target_logprobs.as<float>(),
                    top_ids.as<int>(),
                    top_ids.row_stride,
                    top_logprobs.as<float>(),
                    top_logprobs.row_stride};
  launch(stream, "logprobs", logprobs_kernel, dim3(static_cast<unsigned>(logits.rows)), dim3(kRowThreads),
         sizeof(RowShared), a);
}

}  // namespace trireme::cuda
