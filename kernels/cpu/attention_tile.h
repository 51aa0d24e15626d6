#pragma once
// The inner part of attention: some query rows that share a KV head against one segment of the sequence.
//
// Every query row sees the same arithmetic whatever the chunk it came in: the sequence is cut at absolute
// positions into tiles of kTile tokens and segments of kSegment. Within a tile the scores are exponentiated
// against the running maximum and summed in order of position; tiles are merged in order within their segment
// (online softmax, arXiv:2205.14135), segments are merged in order. So segments can be computed by different
// threads.

#include <cstdint>

#include "kernels/cpu/kv_cache.h"

namespace trireme::cpu {

inline constexpr int64_t kTile = 256;
inline constexpr int64_t kSegment = 2048;
/// Rows are worked on in eights and fours: q, states and values have room for this many more than there are.
inline constexpr int64_t kRowPadding = 3;

/// Softmax state of a query row: maximum and sum of exponentials; the weighted sum of values lies beside it.
struct SoftmaxState {
  float maximum;
  float sum;
};

/// Query rows of one sequence that read one KV head. Rows of a token stand together: row r belongs to the
/// token at position first_position + r / rows_per_token.
struct AttentionRows {
  const float* q;  // [num_rows + kRowPadding, q_stride], zero beyond head_dim, already scaled
  int64_t q_stride;
  int64_t num_rows;
  int64_t rows_per_token;
  int64_t first_position;
  int64_t window_left;  // -1: all
  float softcap;        // 0: none
  const int32_t* block_table;
  const CpuKvCache* cache;
  int layer;
  int64_t kv_head;
};

/// State and values of each row over the positions of segment `segment` that the row sees; rows that see none
/// of it get maximum -infinity and sum 0. state: [num_rows + kRowPadding]; values: [num_rows + kRowPadding,
/// value_dim].
void attend_segment(const AttentionRows& rows, int64_t segment, SoftmaxState* state, float* values);

/// Adds the state of a later segment to `state`. Both value rows have `count` elements.
void merge_segment(SoftmaxState& state, float* values, const SoftmaxState& later, const float* later_values,
                   int64_t count);

}  // namespace trireme::cpu
