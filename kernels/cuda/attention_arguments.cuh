#pragma once
// What every attention kernel is given, and what each of its query rows sees.

#include <cuda_runtime.h>

#include <cstdint>

namespace trireme::cuda {

template <typename T>
struct AttentionArguments {
  const T* q;
  const T *keys, *values;  // of one layer
  T* out;
  int64_t q_stride, out_stride;
  const int *cu_query_lens, *context_lens, *block_tables;
  int64_t table_stride;
  int num_seqs;
  int num_kv_heads, group, head_dim, block_size;  // group: query heads to a KV head
  float scale, softcap;
  int window_left;
  int segment_tokens;
  float* partials;  // of segments, when a context is shared out
  int num_segments;
};

inline constexpr float kLog2e = 1.4426950408889634f;

/// One sequence of the batch. A query row is a token and a head of the group: row = token * group + head.
struct SequenceView {
  int first_query, query_len, context_len;

  template <typename T>
  __device__ __forceinline__ SequenceView(const AttentionArguments<T>& a, int sequence)
      : first_query(a.cu_query_lens[sequence]),
        query_len(a.cu_query_lens[sequence + 1] - first_query),
        context_len(a.context_lens[sequence]) {}

  /// Position of the row's token: the last one it sees.
  __device__ __forceinline__ int last_visible(int token) const { return context_len - query_len + token; }
  __device__ __forceinline__ int first_visible(int token, int window_left) const {
    return window_left < 0 ? 0 : max(0, last_visible(token) - window_left);
  }
};

/// Blocks of kRows query rows: the sequences' one after the other, each as many as it needs or one more. A
/// grid of all sequences by the longest one's rows would be mostly empty where one chunk is beside many
/// single tokens, and blocks that only end take their time too.
template <int kRows>
struct RowBlocks {
  __host__ __device__ __forceinline__ static int64_t before(int64_t num_tokens, int64_t num_seqs, int group) {
    return num_tokens * group / kRows + num_seqs;
  }

  int sequence, first_row;

  template <typename T>
  __device__ __forceinline__ RowBlocks(const AttentionArguments<T>& a, int block) : sequence(0) {
    for (int end = a.num_seqs; end - sequence > 1;) {
      const int middle = (sequence + end) / 2;
      if (before(a.cu_query_lens[middle], middle, a.group) <= block)
        sequence = middle;
      else
        end = middle;
    }
    const auto first_block = static_cast<int>(before(a.cu_query_lens[sequence], sequence, a.group));
    first_row = (block - first_block) * kRows;
  }
};

/// Where a token's key or value of one head begins, in elements.
template <typename T>
__device__ __forceinline__ int64_t cache_offset(const AttentionArguments<T>& a, int sequence, int kv_head,
                                                int token) {
  const int64_t block = a.block_tables[sequence * a.table_stride + token / a.block_size];
  return ((block * a.num_kv_heads + kv_head) * a.block_size + token % a.block_size) * a.head_dim;
}

/// A scaled score where scores are capped.
template <typename T>
__device__ __forceinline__ float capped(const AttentionArguments<T>& a, float score) {
  return a.softcap * tanhf(score / a.softcap);
}

/// q · k as the exponent of 2 that softmax takes.
template <typename T>
__device__ __forceinline__ float exponent(const AttentionArguments<T>& a, float product) {
  float score = product * a.scale;
  if (a.softcap > 0) score = capped(a, score);
  return score * kLog2e;
}

/// Softmax of the part of a context that was seen so far: sum of 2^(exponent - max), and weighted values
/// beside it. Two parts a and b become one whose maximum is `max`; each value is a * left + b * right.
struct Merge {
  float max, left, right;

  __device__ __forceinline__ Merge(float left_max, float right_max) : max(fmaxf(left_max, right_max)) {
    // Nothing seen: nothing to weigh, rather than infinity minus infinity.
    const float base = max == -INFINITY ? 0.0f : max;
    left = exp2f(left_max - base);
    right = exp2f(right_max - base);
  }
  __device__ __forceinline__ float operator()(float a, float b) const {
    return __fmaf_rn(a, left, __fmul_rn(b, right));
  }
};

}  // namespace trireme::cuda
