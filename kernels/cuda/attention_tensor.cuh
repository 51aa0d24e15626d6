#pragma once
// Attention on tensor cores. A warp owns 16 query rows; the warps of a block share tiles of keys and values.

#include "kernels/cuda/attention_arguments.cuh"
#include "kernels/cuda/mask.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/shared.cuh"
#include "kernels/cuda/vector.cuh"

namespace trireme::cuda {

inline constexpr int kRowsPerWarp = 16;
inline constexpr int kTileTokens = 32;

__device__ __forceinline__ uint32_t pack_pair(float x, float y, __nv_bfloat16) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(x, y);
  uint32_t word;
  memcpy(&word, &pair, sizeof word);
  return word;
}
__device__ __forceinline__ uint32_t pack_pair(float x, float y, __half) {
  const __half2 pair = __floats2half2_rn(x, y);
  uint32_t word;
  memcpy(&word, &pair, sizeof word);
  return word;
}

/// What a warp has of its rows so far, in the layout of an accumulator: a lane's elements 0 and 1 belong to
/// row lane / 4, 2 and 3 to the row 8 below.
template <int kHeadDim>
struct WarpState {
  float out[kHeadDim / 8][4];
  float sum[4];  // equal in all columns of a row
  float max[2];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int n = 0; n < kHeadDim / 8; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) out[n][i] = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) sum[i] = 0;
    max[0] = max[1] = -INFINITY;
  }
};

/// Shared memory of a block with kWarps warps: stages of key and value tiles, then the merged state of the
/// segments before this one, each lane's own. A block with one segment (kPartial) merges nothing; there are
/// few of them, and each has one more tile on its way.
template <typename T, int kHeadDim, int kWarps, bool kPartial>
struct AttentionShared {
  static constexpr int kStages = kPartial ? 3 : 2;
  // 16 bytes more than a row needs: the eight rows of a matrix then lie in different banks.
  static constexpr int kRowStride = kHeadDim + 8;
  static constexpr int kTileElements = kTileTokens * kRowStride;
  static constexpr size_t kTileBytes = 2 * kStages * kTileElements * sizeof(T);
  static constexpr int kStateFloats = kHeadDim / 8 * 4 + 4 + 2;
  static constexpr size_t kBytes =
      kTileBytes + (kPartial ? 0 : static_cast<size_t>(kWarps) * kStateFloats * kWarpSize * sizeof(float));

  static __device__ __forceinline__ T* keys(int stage) {
    return dynamic_shared<T>() + 2 * stage * kTileElements;
  }
  static __device__ __forceinline__ T* values(int stage) { return keys(stage) + kTileElements; }
  /// Entry i of this lane is at state()[i * kWarpSize].
  static __device__ __forceinline__ float* state() {
    const int warp = static_cast<int>(threadIdx.x) / kWarpSize,
              lane = static_cast<int>(threadIdx.x) % kWarpSize;
    return reinterpret_cast<float*>(dynamic_shared<unsigned char>() + kTileBytes) +
           warp * kStateFloats * kWarpSize + lane;
  }
};

/// Where the lane's token of a tile is among the cache's rows of head_dim elements: -1 beyond the context.
/// Each lane looks one token up for all of its warp, and a tile ahead of the copies: a division and an answer
/// of the block table for each 16 bytes would take longer than the bytes do.
template <typename T>
__device__ __forceinline__ int find_token(const AttentionArguments<T>& a, int sequence, int kv_head,
                                          int context_len, int first_token) {
  static_assert(kTileTokens == kWarpSize);
  const int token = first_token + static_cast<int>(threadIdx.x) % kWarpSize;
  if (!mask(token < context_len)) return -1;
  const int block = a.block_tables[sequence * a.table_stride + token / a.block_size];
  // 2^31 rows of keys are 256 GiB at the least, in one layer.
  return (block * a.num_kv_heads + kv_head) * a.block_size + token % a.block_size;
}

/// Starts the copies of one tile of keys and one of values, by the lanes' find_token(). Tokens beyond the
/// context become zeros: their weight is zero, and zero times what never was written may be NaN.
template <typename T, int kHeadDim, int kWarps, bool kPartial>
__device__ __forceinline__ void load_tile(const AttentionArguments<T>& a, int found, int stage) {
  using Shared = AttentionShared<T, kHeadDim, kWarps, kPartial>;
  constexpr int kChunks = kHeadDim / 8;  // of 16 bytes, to a row
  constexpr int kThreads = kWarps * kWarpSize, kPasses = (kTileTokens * kChunks + kThreads - 1) / kThreads;
  constexpr int kAtOnce = kPasses < 4 ? kPasses : 4;  // tokens that a lane asks for before it copies
  constexpr bool kWhole = kTileTokens * kChunks % (kThreads * kAtOnce) == 0;
  const int thread = static_cast<int>(threadIdx.x);
  int token = thread / kChunks, column = thread % kChunks;
#pragma unroll 1
  for (int pass = 0; pass < kPasses; pass += kAtOnce) {
    int tokens[kAtOnce], columns[kAtOnce], rows[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      tokens[i] = token, columns[i] = column * 8;
      rows[i] = __shfl_sync(kAllLanes, found, token % kTileTokens);
      token += kThreads / kChunks, column += kThreads % kChunks;
      if (kThreads % kChunks != 0 && column >= kChunks) column -= kChunks, ++token;
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (!kWhole && !mask(tokens[i] < kTileTokens)) continue;  // a warp's all or none
      const int64_t source = int64_t{max(rows[i], 0)} * kHeadDim + columns[i];
      const int place = tokens[i] * Shared::kRowStride + columns[i];
      const bool valid = mask(rows[i] >= 0);
      copy_async_16(Shared::keys(stage) + place, a.keys + source, valid);
      copy_async_16(Shared::values(stage) + place, a.values + source, valid);
    }
  }
}

/// Adds one tile to the state of a warp. `first` and `last`: which tokens the lane's two rows see.
template <typename T, int kHeadDim, int kRowStride>
__device__ __forceinline__ void attend(const AttentionArguments<T>& a, const uint32_t (&q)[kHeadDim / 16][4],
                                       const T* keys, const T* values, int first_token, const int (&first)[2],
                                       const int (&last)[2], WarpState<kHeadDim>& state) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  float scores[kTileTokens / 8][4] = {};
#pragma unroll
  for (int k = 0; k < kHeadDim / 16; ++k) {
#pragma unroll
    for (int n = 0; n < kTileTokens / 8; n += 2) {
      // Matrices: tokens 0 to 7 of the lower and the upper half of k, then tokens 8 to 15.
      uint32_t b[4];
      load_matrices(b, keys + (n * 8 + lane / 16 * 8 + lane % 8) * kRowStride + k * 16 + lane / 8 % 2 * 8);
      const uint32_t left[2] = {b[0], b[1]}, right[2] = {b[2], b[3]};
      multiply_add<T>(scores[n], q[k], left);
      multiply_add<T>(scores[n + 1], q[k], right);
    }
  }
  // One branch for all scores: at each, it would keep them from being computed side by side.
  if (a.softcap > 0) {
#pragma unroll
    for (int n = 0; n < kTileTokens / 8; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) scores[n][i] = capped(a, __fmul_rn(scores[n][i], a.scale));
  } else {
#pragma unroll
    for (int n = 0; n < kTileTokens / 8; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) scores[n][i] = __fmul_rn(scores[n][i], a.scale);
  }
  float tile_max[2] = {-INFINITY, -INFINITY};
#pragma unroll
  for (int n = 0; n < kTileTokens / 8; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int token = first_token + n * 8 + lane % 4 * 2 + i % 2;
      const bool visible = mask(token >= first[i / 2]) && mask(token <= last[i / 2]);
      scores[n][i] = visible ? __fmul_rn(scores[n][i], kLog2e) : -INFINITY;
      tile_max[i / 2] = fmaxf(tile_max[i / 2], scores[n][i]);
    }
  }
  float base[2], factor[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    // The four lanes of a row.
    tile_max[h] = fmaxf(tile_max[h], __shfl_xor_sync(kAllLanes, tile_max[h], 1));
    tile_max[h] = fmaxf(tile_max[h], __shfl_xor_sync(kAllLanes, tile_max[h], 2));
    const float new_max = fmaxf(state.max[h], tile_max[h]);
    base[h] = new_max == -INFINITY ? 0.0f : new_max;
    factor[h] = exp2f(state.max[h] - base[h]);
    state.max[h] = new_max;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) state.sum[i] = __fmul_rn(state.sum[i], factor[i / 2]);
#pragma unroll
  for (int n = 0; n < kHeadDim / 8; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i) state.out[n][i] = __fmul_rn(state.out[n][i], factor[i / 2]);
  const uint32_t one = pack_pair(1.0f, 1.0f, T{});
  const uint32_t ones[2] = {one, one};
#pragma unroll
  for (int k = 0; k < kTileTokens / 16; ++k) {
    // An accumulator's layout is that of a left factor: two neighbouring tiles of scores are 16 columns of
    // it.
    uint32_t p[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float(&s)[4] = scores[2 * k + i / 2];
      const int h = i % 2;
      p[i] = pack_pair(exp2f(s[2 * h] - base[h]), exp2f(s[2 * h + 1] - base[h]), T{});
    }
    multiply_add<T>(state.sum, p, ones);
#pragma unroll
    for (int n = 0; n < kHeadDim / 8; n += 2) {
      uint32_t b[4];
      load_matrices_transposed(b, values + (k * 16 + lane % 16) * kRowStride + n * 8 + lane / 16 * 8);
      const uint32_t left[2] = {b[0], b[1]}, right[2] = {b[2], b[3]};
      multiply_add<T>(state.out[n], p, left);
      multiply_add<T>(state.out[n + 1], p, right);
    }
  }
}

/// Visits each float of a lane's state beside the maxima: value(float&, its row's half, entry in shared
/// memory).
template <int kHeadDim, typename Visit>
__device__ __forceinline__ void for_each_value(WarpState<kHeadDim>& state, Visit visit) {
#pragma unroll
  for (int n = 0; n < kHeadDim / 8; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i) visit(state.out[n][i], i / 2, n * 4 + i);
#pragma unroll
  for (int i = 0; i < 4; ++i) visit(state.sum[i], i / 2, kHeadDim / 8 * 4 + i);
}

/// state = total merged with state. The first segment's total is left out.
template <int kHeadDim>
__device__ __forceinline__ void merge_total(WarpState<kHeadDim>& state, const float* total) {
  constexpr int kMax = kHeadDim / 8 * 4 + 4;
  const Merge merge[2] = {{total[kMax * kWarpSize], state.max[0]},
                          {total[(kMax + 1) * kWarpSize], state.max[1]}};
  for_each_value(state,
                 [&](float& value, int h, int entry) { value = merge[h](total[entry * kWarpSize], value); });
  state.max[0] = merge[0].max;
  state.max[1] = merge[1].max;
}

template <int kHeadDim>
__device__ __forceinline__ void save_total(WarpState<kHeadDim>& state, float* total) {
  constexpr int kMax = kHeadDim / 8 * 4 + 4;
  for_each_value(state, [&](float& value, int, int entry) { total[entry * kWarpSize] = value; });
  total[kMax * kWarpSize] = state.max[0];
  total[(kMax + 1) * kWarpSize] = state.max[1];
}

}  // namespace trireme::cuda
