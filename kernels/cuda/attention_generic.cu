// Attention for what the tensor-core kernels do not take: f32, and odd sizes of heads. One warp to a query
// row.

#include "kernels/cuda/attention_generic.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/mask.cuh"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/shared.cuh"
#include "kernels/cuda/vector.cuh"

namespace trireme::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kMaxPerLane = 8;  // elements of a head that a lane holds: head_dim up to 256

__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2)
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, distance));
  return value;
}

/// Block x: one of RowBlocks, y: KV head. Each lane weighs one of 32 tokens at a time.
template <typename T>
__global__ void __launch_bounds__(kWarps* kWarpSize) generic_attention_kernel(AttentionArguments<T> a) {
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize,
            lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int kv_head = static_cast<int>(blockIdx.y);
  const RowBlocks<kWarps> rows(a, static_cast<int>(blockIdx.x));
  const int sequence = rows.sequence, row = rows.first_row + warp;
  const SequenceView view(a, sequence);
  if (!mask(row < view.query_len * a.group)) return;
  const int token = row / a.group, head = kv_head * a.group + row % a.group;
  const T* source = a.q + (view.first_query + token) * a.q_stride + int64_t{head} * a.head_dim;
  float* q = dynamic_shared<float>() + warp * a.head_dim;
  for (int d = lane; mask_tail(d, a.head_dim, kWarpSize); d += kWarpSize) q[d] = to_float(source[d]);
  __syncwarp();

  float out[kMaxPerLane] = {}, sum = 0, maximum = -INFINITY;
  const int last = view.last_visible(token);
  for (int first = view.first_visible(token, a.window_left); first <= last; first += kWarpSize) {
    float score = -INFINITY;
    if (mask(first + lane <= last)) {
      const T* key = a.keys + cache_offset(a, sequence, kv_head, first + lane);
      float product = 0;
      for (int d = 0; d < a.head_dim; ++d) product = __fmaf_rn(q[d], to_float(key[d]), product);
      score = exponent(a, product);
    }
    const float new_maximum = fmaxf(maximum, warp_max(score));
    const float factor = exp2f(maximum - new_maximum), weight = exp2f(score - new_maximum);
    maximum = new_maximum;
    sum = sum * factor + warp_sum(weight);
    for (int i = 0; i < kMaxPerLane; ++i) out[i] *= factor;
    const int num_tokens = mask_min(kWarpSize, last - first + 1);
    for (int j = 0; j < num_tokens; ++j) {
      const float w = __shfl_sync(kAllLanes, weight, j);
      const T* value = a.values + cache_offset(a, sequence, kv_head, first + j);
      for (int i = 0; i < kMaxPerLane; ++i) {
        const int d = lane + i * kWarpSize;
        if (mask(d < a.head_dim)) out[i] = __fmaf_rn(w, to_float(value[d]), out[i]);
      }
    }
  }
  T* destination = a.out + (view.first_query + token) * a.out_stride + int64_t{head} * a.head_dim;
  for (int i = 0; i < kMaxPerLane; ++i) {
    const int d = lane + i * kWarpSize;
    if (mask(d < a.head_dim)) destination[d] = from_float<T>(out[i] / sum);
  }
}

}  // namespace

template <typename T>
void attend_generic(cudaStream_t stream, const AttentionArguments<T>& a, const RaggedBatch& batch) {
  TRIREME_CHECK(a.head_dim <= kMaxPerLane * kWarpSize);
  const int64_t blocks = RowBlocks<kWarps>::before(batch.num_tokens, batch.num_seqs, a.group);
  const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(a.num_kv_heads));
  launch(stream, "generic_attention", generic_attention_kernel<T>, grid, dim3(kWarps * kWarpSize),
         static_cast<size_t>(kWarps * a.head_dim) * sizeof(float), a);
}

template void attend_generic<float>(cudaStream_t, const AttentionArguments<float>&, const RaggedBatch&);
template void attend_generic<__nv_bfloat16>(cudaStream_t, const AttentionArguments<__nv_bfloat16>&,
                                            const RaggedBatch&);
template void attend_generic<__half>(cudaStream_t, const AttentionArguments<__half>&, const RaggedBatch&);

}  // namespace trireme::cuda
