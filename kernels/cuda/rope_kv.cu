// Rotary embedding of queries and keys, with their normalization where a model has it, and the write of keys
// and values to the cache: one pass over what the projection left. Sources: arXiv:2104.09864;
// arXiv:2309.06180 (paged cache).

#include <algorithm>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/mask.cuh"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/rope_kv.h"
#include "kernels/cuda/shared.cuh"
#include "kernels/cuda/vector.cuh"

namespace trireme::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kMaxPerLane = 8;  // elements of a head that a lane holds: head_dim up to 256

template <typename T>
struct Arguments {
  T *q, *k, *v;
  int64_t q_stride, k_stride, v_stride;
  const int *positions, *slots;
  const float* inverse_frequencies;
  float attention_factor;
  const float *q_weight, *k_weight;  // null: not normalized
  float eps;
  T *k_cache, *v_cache;
  int num_heads, num_kv_heads, head_dim, rotary_dim, block_size;
};

/// A warp's head: lane l holds elements l, l + 32, ...
template <typename T>
__device__ void normalize(float (&values)[kMaxPerLane], const float* weight, float eps, int head_dim,
                          int lane) {
  float squares = 0;
  for (int i = 0; i < kMaxPerLane; ++i) squares += values[i] * values[i];
  const float factor = rsqrtf(warp_sum(squares) / static_cast<float>(head_dim) + eps);
  for (int i = 0; i < kMaxPerLane; ++i) {
    const int d = lane + i * kWarpSize;
    if (mask(d < head_dim)) values[i] = to_float(from_float<T>(values[i] * factor * weight[d]));
  }
}

/// Normalizes and rotates a head, and writes it to `out`. `scratch`: head_dim floats of this warp alone;
/// `turn`: cos of each pair, then sin.
template <typename T>
__device__ void rotate_head(float (&values)[kMaxPerLane], const float* norm_weight, const Arguments<T>& a,
                            const float* turn, float* scratch, T* out, int lane) {
  if (norm_weight != nullptr) normalize<T>(values, norm_weight, a.eps, a.head_dim, lane);
  for (int i = 0; i < kMaxPerLane; ++i) {
    const int d = lane + i * kWarpSize;
    if (mask(d < a.head_dim)) scratch[d] = values[i];
  }
  __syncwarp();
  const int half = a.rotary_dim / 2;
  for (int d = lane; mask_tail(d, a.head_dim, kWarpSize); d += kWarpSize) {
    float value = scratch[d];
    if (d < half)
      value = value * turn[d] - scratch[d + half] * turn[half + d];
    else if (mask(d < a.rotary_dim))
      value = value * turn[d - half] + scratch[d - half] * turn[d];
    out[d] = from_float<T>(value);
  }
}

/// A warp to each head of q, k and v; block x: token, y: kWarps heads of it. One after the other, heads would
/// take a step with few tokens several round trips to memory.
template <typename T>
__global__ void __launch_bounds__(kWarps* kWarpSize) rope_and_store_kv_kernel(Arguments<T> a) {
  const int64_t t = blockIdx.x;
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize,
            lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int h = static_cast<int>(blockIdx.y) * kWarps + warp;
  const bool is_query = h < a.num_heads, is_key = !is_query && h < a.num_heads + a.num_kv_heads;
  const int64_t slot = a.slots[t];
  // Warps beyond the last head would only write a head of v once more.
  const bool there = h < a.num_heads + 2 * a.num_kv_heads && (is_query || mask(slot >= 0));
  const int kv_head = is_query ? 0 : (h - a.num_heads) % a.num_kv_heads;
  T* const head =
      is_query ? a.q + t * a.q_stride + int64_t{h} * a.head_dim
               : (is_key ? a.k + t * a.k_stride : a.v + t * a.v_stride) + int64_t{kv_head} * a.head_dim;
  float values[kMaxPerLane];
  for (int i = 0; i < kMaxPerLane; ++i) {
    const int d = lane + i * kWarpSize;
    values[i] = there && mask(d < a.head_dim) ? to_float(head[d]) : 0.0f;
  }

  const int half = a.rotary_dim / 2;
  float* turn = dynamic_shared<float>();
  float* scratch = turn + a.rotary_dim + warp * a.head_dim;
  const int step = static_cast<int>(blockDim.x);
  for (int i = static_cast<int>(threadIdx.x); mask_tail(i, half, step); i += step) {
    float sine, cosine;
    sincosf(static_cast<float>(a.positions[t]) * a.inverse_frequencies[i], &sine, &cosine);
    turn[i] = cosine * a.attention_factor;
    turn[half + i] = sine * a.attention_factor;
  }
  __syncthreads();
  if (!there) return;
  if (is_query) return rotate_head(values, a.q_weight, a, turn, scratch, head, lane);
  const int64_t block = slot / a.block_size, offset = slot % a.block_size;
  const int64_t place = ((block * a.num_kv_heads + kv_head) * a.block_size + offset) * a.head_dim;
  if (is_key) return rotate_head(values, a.k_weight, a, turn, scratch, a.k_cache + place, lane);
  for (int i = 0; i < kMaxPerLane; ++i) {
    const int d = lane + i * kWarpSize;
    if (mask(d < a.head_dim)) a.v_cache[place + d] = from_float<T>(values[i]);
  }
}

}  // namespace

void rope_and_store_kv(cudaStream_t stream, const Tensor& q, const Tensor& k, const Tensor& v,
                       const RaggedBatch& batch, const RopeSpec& rope, const QkNormSpec& norm,
                       const KvLayer& cache) {
  with_element_type(q.dtype, [&](auto element) {
    using T = decltype(element);
    Arguments<T> a{};
    a.q = q.as<T>(), a.k = k.as<T>(), a.v = v.as<T>();
    a.q_stride = q.row_stride, a.k_stride = k.row_stride, a.v_stride = v.row_stride;
    a.positions = batch.positions.as<const int>(), a.slots = batch.slots.as<const int>();
    a.inverse_frequencies = rope.inverse_frequencies.as<const float>();
    a.attention_factor = rope.attention_factor;
    a.q_weight = norm.q_weight.as<const float>(), a.k_weight = norm.k_weight.as<const float>();
    a.eps = norm.eps;
    a.k_cache = static_cast<T*>(cache.keys), a.v_cache = static_cast<T*>(cache.values);
    a.num_kv_heads = cache.num_kv_heads, a.head_dim = cache.head_dim, a.block_size = cache.block_size;
    a.num_heads = static_cast<int>(q.cols / cache.head_dim);
    a.rotary_dim = rope.rotary_dim;
    const size_t floats = static_cast<size_t>(a.rotary_dim + kWarps * a.head_dim);
    const int heads = a.num_heads + 2 * a.num_kv_heads;
    launch(
        stream, "rope_and_store_kv", rope_and_store_kv_kernel<T>,
        dim3(static_cast<unsigned>(batch.num_tokens), static_cast<unsigned>((heads + kWarps - 1) / kWarps)),
        dim3(kWarps * kWarpSize), floats * sizeof(float), a);
  });
}

void CudaBackend::do_rope_and_store_kv(const Tensor& q, const Tensor& k, const Tensor& v,
                                       const RaggedBatch& batch, const RopeSpec& rope, const QkNormSpec& norm,
                                       KvCache& cache, int layer) {
  cuda::rope_and_store_kv(queue(), q, k, v, batch, rope, norm, static_cast<CudaKvCache&>(cache).layer(layer));
}

}  // namespace trireme::cuda
