// Which kernel attends, the tensor-core kernel for chunks and single tokens, and the merge of shared-out
// contexts.

#include "kernels/cuda/attention.h"

#include <algorithm>
#include <type_traits>

#include "kernels/cuda/attention_generic.h"
#include "kernels/cuda/attention_tensor.cuh"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/mask.cuh"

namespace trireme::cuda {
namespace {

constexpr int kChunkWarps = 4;
constexpr int kMergeThreads = 128;
constexpr int kSegmentBlocks = 4;  // to a multiprocessor: 52 KiB of shared memory each with heads of 128

/// Whether a block may have several segments: with heads of 256 there are no registers for the end of one
/// between two tiles.
template <int kHeadDim>
inline constexpr bool kSeveralSegments = kHeadDim <= 128;

/// The tokens that rows [first_row, first_row + num_rows) of a sequence see between them: [begin, end).
struct TokenRange {
  int begin, end;

  template <typename T>
  __device__ __forceinline__ TokenRange(const AttentionArguments<T>& a, const SequenceView& view,
                                        int first_row, int num_rows) {
    const int rows = view.query_len * a.group;
    begin = view.first_visible(first_row / a.group, a.window_left);
    end = view.last_visible((min(first_row + num_rows, rows) - 1) / a.group) + 1;
  }
};

/// Entries of one segment's partial result: row by row, then sums, then maxima.
__host__ __device__ __forceinline__ int partial_floats(int num_rows, int head_dim) {
  return num_rows * (head_dim + 2);
}

/// Most rows that a sequence of single tokens, or of very short chunks, has in one warp.
__host__ __device__ __forceinline__ int rows_of_partials(int max_query_len, int group) {
  const int64_t rows = int64_t{max_query_len} * group;
  return rows < kRowsPerWarp ? static_cast<int>(rows) : kRowsPerWarp;
}

/// Writes the lane's rows: divided by their sums into the output, or as they are into the partial result.
template <typename T, int kHeadDim, bool kPartial>
__device__ __forceinline__ void write_rows(const AttentionArguments<T>& a, const SequenceView& view,
                                           int kv_head, const int (&rows)[2], WarpState<kHeadDim>& state,
                                           float* partial, int partial_rows) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize, num_rows = view.query_len * a.group;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int row = rows[h];
    if (!mask(row < num_rows)) continue;
    if (kPartial) {
#pragma unroll
      for (int n = 0; n < kHeadDim / 8; ++n)
        *reinterpret_cast<float2*>(partial + row * kHeadDim + n * 8 + lane % 4 * 2) =
            make_float2(state.out[n][2 * h], state.out[n][2 * h + 1]);
      if (lane % 4 == 0) {
        partial[partial_rows * kHeadDim + row] = state.sum[2 * h];
        partial[partial_rows * (kHeadDim + 1) + row] = state.max[h];
      }
    } else {
      T* out = a.out + (view.first_query + row / a.group) * a.out_stride +
               int64_t{kv_head * a.group + row % a.group} * kHeadDim;
      const float sum = state.sum[2 * h];
#pragma unroll
      for (int n = 0; n < kHeadDim / 8; ++n) {
        const float values[2] = {state.out[n][2 * h] / sum, state.out[n][2 * h + 1] / sum};
        store(out + n * 8 + lane % 4 * 2, values);
      }
    }
  }
}

/// Query rows in the layout of a left factor; the last one again for rows that are not there.
template <typename T, int kHeadDim>
__device__ __forceinline__ void load_queries(const AttentionArguments<T>& a, const SequenceView& view,
                                             int kv_head, const int (&rows)[2],
                                             uint32_t (&q)[kHeadDim / 16][4]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize, num_rows = view.query_len * a.group;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int row = mask_min(rows[h], num_rows - 1);
    const T* source = a.q + (view.first_query + row / a.group) * a.q_stride +
                      int64_t{kv_head * a.group + row % a.group} * kHeadDim + lane % 4 * 2;
#pragma unroll
    for (int k = 0; k < kHeadDim / 16; ++k) {
      q[k][h] = *reinterpret_cast<const uint32_t*>(source + k * 16);
      q[k][h + 2] = *reinterpret_cast<const uint32_t*>(source + k * 16 + 8);
    }
  }
}

using ChunkBlocks = RowBlocks<kChunkWarps * kRowsPerWarp>;

/// kWarps = 1: all rows of sequence z, if it has at most 16 of them. Block x: with kPartial neighbouring
/// segments of the context, an equal number for each. kWarps > 1: a block of ChunkBlocks, if its sequence has
/// more rows. Block y: KV head.
template <typename T, int kHeadDim, int kWarps, bool kPartial>
__global__ void __launch_bounds__(kWarps* kWarpSize)
    attention_kernel(AttentionArguments<T> a, int partial_rows) {
  using Shared = AttentionShared<T, kHeadDim, kWarps, kPartial>;
  constexpr int kStages = Shared::kStages;
  const int kv_head = static_cast<int>(blockIdx.y);
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize,
            lane = static_cast<int>(threadIdx.x) % kWarpSize;
  int sequence = static_cast<int>(blockIdx.z), block_row = 0;
  if (kWarps > 1) {
    // Those at a sequence's end see most of it: they start first, so that none of them is alone at last.
    const ChunkBlocks rows(a, static_cast<int>(gridDim.x - 1 - blockIdx.x));
    sequence = rows.sequence;
    block_row = rows.first_row;
  }
  const SequenceView view(a, sequence);
  const int num_rows = view.query_len * a.group;
  if ((num_rows <= kRowsPerWarp) != (kWarps == 1) || block_row >= num_rows) return;

  TokenRange range(a, view, block_row, kWarps * kRowsPerWarp);
  if (kPartial) {
    const int first_segment = range.begin / a.segment_tokens, blocks = static_cast<int>(gridDim.x);
    const int segments = (range.end - 1) / a.segment_tokens + 1 - first_segment;
    const int each = (segments + blocks - 1) / blocks * a.segment_tokens;
    const int begin = first_segment * a.segment_tokens + static_cast<int>(blockIdx.x) * each;
    range.begin = max(range.begin, begin);
    range.end = min(range.end, begin + each);
    if (range.begin >= range.end) return;
  }
  const int warp_row = block_row + warp * kRowsPerWarp;
  const int rows[2] = {warp_row + lane / 4, warp_row + lane / 4 + 8};
  int first[2], last[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    first[h] = view.first_visible(rows[h] / a.group, a.window_left);
    // Saves registers, of which heads of 96 and 256 spill some otherwise; no result needs it, as rows that
    // are not there are written nowhere.
    last[h] = rows[h] < num_rows ? view.last_visible(rows[h] / a.group) : -1;
  }
  TokenRange warp_range(a, view, min(warp_row, num_rows - 1), kRowsPerWarp);
  if (warp_row >= num_rows) warp_range.end = 0;
  uint32_t q[kHeadDim / 16][4];
  load_queries<T, kHeadDim>(a, view, kv_head, rows, q);

  const int begin_tile = range.begin / kTileTokens, end_tile = (range.end - 1) / kTileTokens + 1;
  const int tiles_per_segment = a.segment_tokens / kTileTokens;
  const auto find = [&](int tile) {
    return find_token(a, sequence, kv_head, view.context_len, tile * kTileTokens);
  };
#pragma unroll
  for (int s = 0; s < kStages - 1; ++s) {
    if (begin_tile + s < end_tile) load_tile<T, kHeadDim, kWarps, kPartial>(a, find(begin_tile + s), s);
    commit_copies();
  }
  int found = find(begin_tile + kStages - 1);
  WarpState<kHeadDim> state;
  state.clear();
  const auto write_partial = [&](int last_tile) {
    const int64_t pair = int64_t{sequence} * a.num_kv_heads + kv_head;
    const int64_t place = pair * a.num_segments + last_tile / tiles_per_segment;
    write_rows<T, kHeadDim, true>(a, view, kv_head, rows, state,
                                  a.partials + place * partial_floats(partial_rows, kHeadDim), partial_rows);
  };
  bool merged = false;
  for (int tile = begin_tile; tile < end_tile; ++tile) {
    const int next = tile + kStages - 1;
    wait_for_copies<kStages - 2>();
    __syncthreads();  // all copies of this tile are here, and nobody reads the one before any more
    if (next < end_tile) load_tile<T, kHeadDim, kWarps, kPartial>(a, found, (next - begin_tile) % kStages);
    commit_copies();
    found = find(next + 1);
    if (tile > begin_tile && tile % tiles_per_segment == 0) {
      if (kPartial) {
        if (kSeveralSegments<kHeadDim>) write_partial(tile - 1);
      } else {
        if (merged) merge_total(state, Shared::state());
        save_total(state, Shared::state());
        merged = true;
      }
      state.clear();
    }
    const int first_token = tile * kTileTokens, stage = (tile - begin_tile) % kStages;
    if (first_token >= warp_range.end || first_token + kTileTokens <= warp_range.begin) continue;
    attend<T, kHeadDim, Shared::kRowStride>(a, q, Shared::keys(stage), Shared::values(stage), first_token,
                                            first, last, state);
  }
  if (merged) merge_total(state, Shared::state());
  if (kPartial)
    write_partial(end_tile - 1);
  else
    write_rows<T, kHeadDim, false>(a, view, kv_head, rows, state, nullptr, 0);
}

/// Merges the segments of each sequence with at most 16 rows, in order. Block x: kMergeThreads values of the
/// rows, y: KV head, z: sequence.
template <typename T>
__global__ void __launch_bounds__(kMergeThreads) merge_kernel(AttentionArguments<T> a, int partial_rows) {
  constexpr int kAtOnce = 8;  // segments that are asked for before the first is needed
  const int kv_head = static_cast<int>(blockIdx.y), sequence = static_cast<int>(blockIdx.z);
  const SequenceView view(a, sequence);
  const int num_rows = view.query_len * a.group;
  const int i = static_cast<int>(blockIdx.x) * kMergeThreads + static_cast<int>(threadIdx.x);
  if (!mask(num_rows <= kRowsPerWarp)) return;  // they have been written as a chunk
  if (!mask(i < num_rows * a.head_dim)) return;
  const TokenRange range(a, view, 0, num_rows);
  const int begin = range.begin / a.segment_tokens, end = (range.end - 1) / a.segment_tokens + 1;
  const int stride = partial_floats(partial_rows, a.head_dim), row = i / a.head_dim;
  const float* of_sequence =
      a.partials + (int64_t{sequence} * a.num_kv_heads + kv_head) * a.num_segments * stride;
  const int sum_place = partial_rows * a.head_dim + row, max_place = sum_place + partial_rows;
  const float* partial = of_sequence + int64_t{begin} * stride;
  float value = partial[i], sum = partial[sum_place], maximum = partial[max_place];
  for (int segment = begin + 1; segment < end; segment += kAtOnce) {
    float values[kAtOnce], sums[kAtOnce], maxima[kAtOnce];
#pragma unroll
    for (int s = 0; s < kAtOnce; ++s) {
      partial = of_sequence + int64_t{mask_min(segment + s, end - 1)} * stride;
      values[s] = partial[i], sums[s] = partial[sum_place], maxima[s] = partial[max_place];
    }
#pragma unroll
    for (int s = 0; s < kAtOnce; ++s) {
      if (!mask(segment + s < end)) continue;
      const Merge merge(maximum, maxima[s]);
      value = merge(value, values[s]);
      sum = merge(sum, sums[s]);
      maximum = merge.max;
    }
  }
  a.out[(view.first_query + row / a.group) * a.out_stride +
        int64_t{kv_head * a.group + row % a.group} * a.head_dim + i % a.head_dim] =
      from_float<T>(value / sum);
}

unsigned count(int64_t value) { return static_cast<unsigned>(value); }

template <typename T, int kHeadDim>
void attend_chunks(cudaStream_t stream, const AttentionArguments<T>& a, const RaggedBatch& batch) {
  const dim3 grid(count(ChunkBlocks::before(batch.num_tokens, batch.num_seqs, a.group)),
                  count(a.num_kv_heads));
  launch(stream, "attention of chunks", attention_kernel<T, kHeadDim, kChunkWarps, false>, grid,
         dim3(kChunkWarps * kWarpSize), AttentionShared<T, kHeadDim, kChunkWarps, false>::kBytes, a, 0);
}

template <typename T, int kHeadDim>
void attend_tokens(cudaStream_t stream, AttentionArguments<T> a, const RaggedBatch& batch,
                   const AttentionWorkspace& workspace) {
  const int rows = rows_of_partials(static_cast<int>(batch.max_query_len), a.group);
  const int64_t pairs = batch.num_seqs * a.num_kv_heads;
  a.num_segments = static_cast<int>((batch.max_context_len + a.segment_tokens - 1) / a.segment_tokens);
  const size_t bytes =
      static_cast<size_t>(pairs * a.num_segments * partial_floats(rows, kHeadDim)) * sizeof(float);
  // Two blocks to a multiprocessor keep its memory busy; with fewer, the contexts are shared out.
  if (a.num_segments == 1 || pairs >= 2 * workspace.num_multiprocessors || bytes > workspace.bytes) {
    launch(stream, "attention of tokens", attention_kernel<T, kHeadDim, 1, false>,
           dim3(1, count(a.num_kv_heads), count(batch.num_seqs)), dim3(kWarpSize),
           AttentionShared<T, kHeadDim, 1, false>::kBytes, a, 0);
    return;
  }
  a.partials = workspace.data;
  // As many as run at once: with the longest context's for each sequence, most would often have no work.
  const int64_t most_blocks = kSegmentBlocks * workspace.num_multiprocessors;
  const int64_t blocks = kSeveralSegments<kHeadDim>
                             ? std::min<int64_t>(a.num_segments, (most_blocks + pairs - 1) / pairs)
                             : a.num_segments;
  launch(stream, "attention of segments", attention_kernel<T, kHeadDim, 1, true>,
         dim3(count(blocks), count(a.num_kv_heads), count(batch.num_seqs)), dim3(kWarpSize),
         AttentionShared<T, kHeadDim, 1, true>::kBytes, a, rows);
  launch(stream, "merge of segments", merge_kernel<T>,
         dim3(count((rows * kHeadDim + kMergeThreads - 1) / kMergeThreads), count(a.num_kv_heads),
              count(batch.num_seqs)),
         dim3(kMergeThreads), 0, a, rows);
}

template <typename T, int kHeadDim>
void attend_tensor(cudaStream_t stream, const AttentionArguments<T>& a, const RaggedBatch& batch,
                   const AttentionWorkspace& workspace) {
  const bool any_chunk = batch.max_query_len * a.group > kRowsPerWarp;
  if (any_chunk) attend_chunks<T, kHeadDim>(stream, a, batch);
  if (!any_chunk || batch.num_seqs > 1) attend_tokens<T, kHeadDim>(stream, a, batch, workspace);
}

/// Calls `visit` with head_dim as a type, if there is a tensor-core kernel for it.
template <typename Visit>
void with_tensor_head_dim(int head_dim, Visit visit) {
  switch (head_dim) {
    case 64:
      return visit(std::integral_constant<int, 64>());
    case 80:
      return visit(std::integral_constant<int, 80>());
    case 96:
      return visit(std::integral_constant<int, 96>());
    case 128:
      return visit(std::integral_constant<int, 128>());
    case 256:
      return visit(std::integral_constant<int, 256>());
    default:
      return;
  }
}

/// One kernel for all rows of a service, chunks and tokens: their bits must not differ.
bool takes_tensor(DType dtype, int head_dim, const AttentionWorkspace& workspace) {
  const size_t wanted = tensor_attention_shared_bytes(dtype, head_dim);
  return wanted > 0 && wanted <= workspace.max_shared_bytes;
}

template <typename T>
void attend_tensor_of(cudaStream_t stream, const AttentionArguments<T>& a, const RaggedBatch& batch,
                      const AttentionWorkspace& workspace) {
  with_tensor_head_dim(a.head_dim, [&](auto head_dim) {
    attend_tensor<T, decltype(head_dim)::value>(stream, a, batch, workspace);
  });
}
template <>
void attend_tensor_of<float>(cudaStream_t, const AttentionArguments<float>&, const RaggedBatch&,
                             const AttentionWorkspace&) {}

}  // namespace

size_t tensor_attention_shared_bytes(DType dtype, int head_dim) {
  if (dtype != DType::bf16 && dtype != DType::f16) return 0;
  size_t bytes = 0;
  with_tensor_head_dim(head_dim, [&](auto dim) {
    bytes = AttentionShared<__half, decltype(dim)::value, kChunkWarps, false>::kBytes;
  });
  return bytes;
}

size_t attention_workspace_bytes(int64_t num_seqs, int64_t num_heads, int64_t max_context_len, int head_dim,
                                 int segment_tokens) {
  const int64_t segments = (max_context_len + segment_tokens - 1) / segment_tokens;
  return static_cast<size_t>(num_seqs * num_heads * segments * (head_dim + 2)) * sizeof(float);
}

size_t most_attention_workspace_bytes(int64_t num_kv_heads, int64_t max_context_len, int head_dim,
                                      int num_multiprocessors) {
  const int64_t most_pairs = (2 * num_multiprocessors - 1) / num_kv_heads * num_kv_heads;
  const int64_t segments =
      (max_context_len + AttentionWorkspace().segment_tokens - 1) / AttentionWorkspace().segment_tokens;
  return static_cast<size_t>(most_pairs * segments * partial_floats(kRowsPerWarp, head_dim)) * sizeof(float);
}

void attention(cudaStream_t stream, const Tensor& q, const KvLayer& cache, const RaggedBatch& batch,
               const AttentionSpec& spec, const AttentionWorkspace& workspace, const Tensor& out) {
  TRIREME_CHECK(workspace.segment_tokens > 0 && workspace.segment_tokens % kTileTokens == 0);
  with_element_type(q.dtype, [&](auto element) {
    using T = decltype(element);
    AttentionArguments<T> a{};
    a.q = q.as<const T>(), a.out = out.as<T>();
    a.keys = static_cast<const T*>(cache.keys), a.values = static_cast<const T*>(cache.values);
    a.q_stride = q.row_stride, a.out_stride = out.row_stride;
    a.cu_query_lens = batch.cu_query_lens.as<const int>(),
    a.context_lens = batch.context_lens.as<const int>();
    a.block_tables = batch.block_tables.as<const int>(), a.table_stride = batch.block_tables.row_stride;
    a.num_seqs = static_cast<int>(batch.num_seqs);
    a.num_kv_heads = cache.num_kv_heads, a.head_dim = cache.head_dim, a.block_size = cache.block_size;
    a.group = static_cast<int>(q.cols / (int64_t{cache.num_kv_heads} * cache.head_dim));
    a.scale = spec.scale, a.softcap = spec.logit_softcap, a.window_left = spec.window_left;
    a.segment_tokens = workspace.segment_tokens;
    // Tensor cores take two neighbours at a time.
    const bool pairs = rows_aligned(q, 2) && rows_aligned(out, 2);
    if (pairs && takes_tensor(q.dtype, a.head_dim, workspace))
      attend_tensor_of(stream, a, batch, workspace);
    else
      attend_generic(stream, a, batch);
  });
}

void CudaBackend::do_attention(const Tensor& q, const KvCache& cache, int layer, const RaggedBatch& batch,
                               const AttentionSpec& spec, const Tensor& out) {
  const AttentionWorkspace workspace{static_cast<float*>(attention_parts_.data()), attention_parts_.bytes(),
                                     device_.num_multiprocessors, device_.max_shared_bytes};
  cuda::attention(queue(), q, static_cast<const CudaKvCache&>(cache).layer(layer), batch, spec, workspace,
                  out);
}

}  // namespace trireme::cuda
