// Paged attention: how rows, heads and segments are shared between threads. The arithmetic is in
// attention_tile.cc and does not depend on the sharing.

#include <algorithm>
#include <cmath>

#include "kernels/check.h"
#include "kernels/cpu/attention_tile.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/kv_cache.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/round_up.h"

namespace trireme::cpu {
namespace {

constexpr int64_t kMaxTileRows = 128;  // query rows of one piece of work, about

/// One call's numbers, and the pieces of work it is cut into: (sequence, tile of query tokens, KV head).
struct Job {
  const Tensor& q;
  const CpuKvCache& cache;
  const RaggedBatch& batch;
  const AttentionSpec& spec;
  const Tensor& out;
  int layer;
  int64_t dim, value_dim, num_kv_heads, group;  // group: query heads of a KV head
  int64_t longest_piece = 0;                    // in tokens
  int64_t tile_tokens() const { return std::max<int64_t>(1, kMaxTileRows / group); }
  int64_t tile_rows() const { return tile_tokens() * group + kRowPadding; }
  /// Floats of a thread's scratch: q, values, values of one segment, two states.
  int64_t thread_floats() const { return round_up(tile_rows() * (3 * value_dim + 4), kTokenGroup); }
  /// Floats of the result of one segment: values, state.
  int64_t part_floats() const { return round_up(part_rows() * (value_dim + 2), kTokenGroup); }
  int64_t part_rows() const { return longest_piece * group + kRowPadding; }
};

struct Piece {
  int64_t sequence, first_token, num_tokens, kv_head;  // tokens of the query, counted in the sequence's chunk
  int64_t first_position;
  int64_t cost;  // score computations
};

/// Calls body(piece) for all pieces in a fixed order.
template <typename Body>
void for_each_piece(const Job& job, Body&& body) {
  const int32_t* cu = job.batch.cu_query_lens.as<int32_t>();
  const int32_t* context = job.batch.context_lens.as<int32_t>();
  for (int64_t s = 0; s < job.batch.num_seqs; ++s) {
    const int64_t query_len = cu[s + 1] - cu[s], past = context[s] - query_len;
    CHECK_GE(query_len, 0);
    CHECK_GE(past, 0);
    for (int64_t h = 0; h < job.num_kv_heads; ++h) {
      for (int64_t t = 0; t < query_len; t += job.tile_tokens()) {
        const int64_t tokens = std::min(job.tile_tokens(), query_len - t), last = past + t + tokens;
        const int64_t seen =
            job.spec.window_left < 0 ? last : std::min<int64_t>(last, job.spec.window_left + tokens);
        body(Piece{s, t, tokens, h, past + t, tokens * job.group * (seen + kTokenGroup)});
      }
    }
  }
}

/// The rows of a piece whose q has been copied.
AttentionRows rows_over(const Job& job, const Piece& piece, const float* q) {
  const Tensor& tables = job.batch.block_tables;
  return {q,
          job.value_dim,
          piece.num_tokens * job.group,
          job.group,
          piece.first_position,
          job.spec.window_left,
          job.spec.logit_softcap,
          tables.as<int32_t>() + piece.sequence * tables.row_stride,
          &job.cache,
          job.layer,
          piece.kv_head};
}

/// The rows of a piece, their q copied, scaled and padded into `q`.
AttentionRows piece_rows(const Job& job, const Piece& piece, float* q) {
  const int64_t first_row = job.batch.cu_query_lens.as<int32_t>()[piece.sequence] + piece.first_token;
  float* to = q;
  for (int64_t t = 0; t < piece.num_tokens; ++t) {
    const float* from =
        job.q.as<float>() + (first_row + t) * job.q.row_stride + piece.kv_head * job.group * job.dim;
    for (int64_t g = 0; g < job.group; ++g, from += job.dim, to += job.value_dim) {
      for (int64_t i = 0; i < job.dim; ++i) to[i] = from[i] * job.spec.scale;
      std::fill(to + job.dim, to + job.value_dim, 0.0f);
    }
  }
  std::fill(to, to + kRowPadding * job.value_dim, 0.0f);
  return rows_over(job, piece, q);
}

int64_t first_segment(const Job& job, const Piece& piece) {
  if (job.spec.window_left < 0) return 0;
  return std::max<int64_t>(0, piece.first_position - job.spec.window_left) / kSegment;
}
int64_t end_segment(const Piece& piece) {
  return (piece.first_position + piece.num_tokens - 1) / kSegment + 1;
}

void write_rows(const Job& job, const Piece& piece, const SoftmaxState* state, const float* values) {
  const int64_t first_row = job.batch.cu_query_lens.as<int32_t>()[piece.sequence] + piece.first_token;
  for (int64_t r = 0; r < piece.num_tokens * job.group; ++r) {
    float* to = job.out.as<float>() + (first_row + r / job.group) * job.out.row_stride +
                (piece.kv_head * job.group + r % job.group) * job.dim;
    const float* from = values + r * job.value_dim;
    for (int64_t i = 0; i < job.dim; ++i) to[i] = from[i] / state[r].sum;
  }
}

/// A whole piece on one thread.
void run_piece(const Job& job, const Piece& piece, float* scratch) {
  const int64_t rows = job.tile_rows(), floats = rows * job.value_dim;
  float *q = scratch, *values = q + floats, *part = values + floats;
  auto* state = reinterpret_cast<SoftmaxState*>(part + floats);
  SoftmaxState* part_state = state + rows;
  const AttentionRows piece_data = piece_rows(job, piece, q);
  const int64_t first = first_segment(job, piece);
  attend_segment(piece_data, first, state, values);
  for (int64_t segment = first + 1; segment < end_segment(piece); ++segment) {
    attend_segment(piece_data, segment, part_state, part);
    for (int64_t r = 0; r < piece_data.num_rows; ++r)
      merge_segment(state[r], values + r * job.value_dim, part_state[r], part + r * job.value_dim,
                    job.value_dim);
  }
  write_rows(job, piece, state, values);
}

/// Pieces shared between threads by cost: thread t takes those whose middle falls in its share.
void run_shared_pieces(const Job& job, int threads, float* scratch) {
  int64_t total = 0;
  for_each_piece(job, [&](const Piece& piece) { total += piece.cost; });
  parallel_ranges(threads, threads, 2, [&](int, Range parts) {
    for (int64_t part = parts.begin; part < parts.end; ++part) {
      int64_t before = 0;
      for_each_piece(job, [&](const Piece& piece) {
        const int64_t owner = (2 * before + piece.cost) * threads / (2 * total);
        before += piece.cost;
        if (owner == part) run_piece(job, piece, scratch + part * job.thread_floats());
      });
    }
  });
}

/// Few pieces: their segments are shared between threads, then merged in order. The arithmetic is
/// run_piece's.
void run_shared_segments(const Job& job, int threads, int64_t num_segments, float* scratch, float* parts) {
  const int64_t values_floats = job.part_rows() * job.value_dim;
  auto state_of = [&](int64_t index) {
    return reinterpret_cast<SoftmaxState*>(parts + index * job.part_floats() + values_floats);
  };
  parallel_ranges(threads, num_segments, 2, [&](int thread, Range mine) {
    int64_t index = 0;
    for_each_piece(job, [&](const Piece& piece) {
      float* q = scratch + thread * job.thread_floats();
      bool copied = false;
      for (int64_t segment = first_segment(job, piece); segment < end_segment(piece); ++segment, ++index) {
        if (index < mine.begin || index >= mine.end) continue;
        const AttentionRows rows = copied ? rows_over(job, piece, q) : piece_rows(job, piece, q);
        copied = true;
        attend_segment(rows, segment, state_of(index), parts + index * job.part_floats());
      }
    });
  });
  int64_t index = 0;
  for_each_piece(job, [&](const Piece& piece) {
    const int64_t first = index;
    index += end_segment(piece) - first_segment(job, piece);
    float* values = parts + first * job.part_floats();
    for (int64_t later = first + 1; later < index; ++later) {
      for (int64_t r = 0; r < piece.num_tokens * job.group; ++r)
        merge_segment(state_of(first)[r], values + r * job.value_dim, state_of(later)[r],
                      parts + later * job.part_floats() + r * job.value_dim, job.value_dim);
    }
    write_rows(job, piece, state_of(first), values);
  });
}

}  // namespace

void CpuBackend::do_attention(const Tensor& q, const KvCache& cache, int layer, const RaggedBatch& batch,
                              const AttentionSpec& spec, const Tensor& out) {
  const auto& kv = dynamic_cast<const CpuKvCache&>(cache);
  const int64_t dim = cache.spec().head_dim, num_kv_heads = cache.spec().num_kv_heads;
  const int64_t group = q.cols / (dim * num_kv_heads);
  Job job{q, kv, batch, spec, out, layer, dim, kv.layout().value_dim, num_kv_heads, group, 0};
  auto floats = [&](Workspace& workspace, int64_t count) {
    return static_cast<float*>(workspace.get(static_cast<size_t>(count) * sizeof(float), threads_));
  };
  float* scratch = floats(attention_, job.thread_floats() * threads_);
  int64_t num_pieces = 0, num_segments = 0;
  for_each_piece(job, [&](const Piece& piece) {
    ++num_pieces;
    job.longest_piece = std::max(job.longest_piece, piece.num_tokens);
    num_segments += end_segment(piece) - first_segment(job, piece);
  });
  if (num_pieces < 2 * threads_ && num_segments > num_pieces) {
    run_shared_segments(job, threads_, num_segments, scratch,
                        floats(attention_parts_, num_segments * job.part_floats()));
  } else {
    run_shared_pieces(job, threads_, scratch);
  }
}

}  // namespace trireme::cpu
