#include "kernels/cpu/attention_tile.h"

#include <algorithm>
#include <cmath>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention_tile.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/cpu/attention_registers-inl.h"
#include "kernels/cpu/exp-inl.h"

HWY_BEFORE_NAMESPACE();
namespace trireme::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

HWY_INLINE void cap_scores(float* scores, int64_t count, float cap) {
  for (int64_t i = 0; i < count; ++i) scores[i] = cap * std::tanh(scores[i] / cap);
}

/// Turns scores [first, last) of a tile into exp(score - maximum) and zeroes the rest of [begin, end), where
/// begin and end are multiples of 16. Returns the factor that earlier values and sums must be multiplied
/// with.
HWY_INLINE float exponentiate(float* scores, int64_t begin, int64_t end, int64_t first, int64_t last,
                              SoftmaxState& state) {
  const F32 d;
  const float lowest = -std::numeric_limits<float>::infinity();
  std::fill(scores + begin, scores + first, lowest);
  std::fill(scores + last, scores + end, lowest);
  auto maxima = hn::Set(d, state.maximum);
  for (int64_t i = begin; i < end; i += kLanes) maxima = hn::Max(maxima, hn::Load(d, scores + i));
  const float maximum = hn::GetLane(hn::MaxOfLanes(d, maxima));
  const auto shift = hn::Set(d, maximum);
  auto sums = hn::Zero(d);
  for (int64_t i = begin; i < end; i += kLanes) {
    const auto p = exp_f32(d, hn::Sub(hn::Load(d, scores + i), shift));
    sums = hn::Add(sums, p);
    hn::Store(p, d, scores + i);
  }
  const float earlier = state.sum == 0 ? 0.0f : hn::GetLane(exp_f32(d, hn::Set(d, state.maximum - maximum)));
  state.sum = state.sum * earlier + hn::GetLane(hn::SumOfLanes(d, sums));
  state.maximum = maximum;
  return earlier;
}

struct TileRange {
  int64_t first, last;  // counted from the tile's first position
};
/// What a row sees of a tile. Rows beyond the last (they fill up the registers) see what the last one does.
HWY_INLINE TileRange visible(const AttentionRows& rows, int64_t row, int64_t tile) {
  const int64_t position = rows.first_position + std::min(row, rows.num_rows - 1) / rows.rows_per_token;
  const int64_t oldest = rows.window_left < 0 ? 0 : std::max<int64_t>(0, position - rows.window_left);
  const int64_t first = std::max<int64_t>(0, oldest - tile);
  return {first, std::max(first, std::min(kTile, position + 1 - tile))};
}

/// One tile for kRows rows. What a row does not see gets the weight zero.
template <int kRows, typename T>
void attend_tile(const AttentionRows& rows, int64_t row, int64_t tile, const TileBlocks<T>& blocks,
                 SoftmaxState* state, float* values) {
  const KvLayout& layout = rows.cache->layout();
  const F32 d;
  TileRange range[kRows];
  TileRange all = {kTile, 0};
  for (int r = 0; r < kRows; ++r) {
    range[r] = visible(rows, row + r, tile);
    if (range[r].first == range[r].last) continue;
    all = {std::min(all.first, range[r].first), std::max(all.last, range[r].last)};
  }
  if (all.first >= all.last) return;
  HWY_ALIGN float memory[kRows * kScoreStride];
  float* scores = memory + kTokenGroup;
  score_tile<kRows>(rows, rows.q + row * rows.q_stride, blocks, all.first, all.last, scores);
  const int64_t begin = all.first / kTokenGroup * kTokenGroup, end = round_up(all.last, kTokenGroup);
  for (int r = 0; r < kRows; ++r) {
    float* row_scores = scores + r * kScoreStride;
    const auto [first, last] = range[r];
    if (first == last) {
      std::fill(row_scores + begin, row_scores + end, 0.0f);
      continue;
    }
    if (rows.softcap != 0) cap_scores(row_scores + first, last - first, rows.softcap);
    const auto factor = hn::Set(d, exponentiate(row_scores, begin, end, first, last, state[r]));
    float* row_values = values + r * layout.value_dim;
    for (int64_t i = 0; i < layout.value_dim; i += kLanes)
      hn::Store(hn::Mul(hn::Load(d, row_values + i), factor), d, row_values + i);
  }
  constexpr int kVectors = kLanes == 16 ? (kRows <= 4 ? 4 : 2) : 1;
  int64_t column = 0;
  for (; column + kVectors * kLanes <= layout.value_dim; column += kVectors * kLanes)
    add_values<kRows, kVectors>(scores, blocks, layout.block_size, layout.value_dim, column, all.first,
                                all.last, values);
  for (; column < layout.value_dim; column += kLanes)
    add_values<kRows, 1>(scores, blocks, layout.block_size, layout.value_dim, column, all.first, all.last,
                         values);
}

template <typename T>
void attend_tiles(const AttentionRows& rows, int64_t segment, SoftmaxState* state, float* values) {
  const int64_t dim = rows.cache->layout().value_dim, padded_rows = rows.num_rows + kRowPadding;
  const float lowest = -std::numeric_limits<float>::infinity();
  std::fill(state, state + padded_rows, SoftmaxState{lowest, 0});
  std::fill(values, values + padded_rows * dim, 0.0f);
  const int64_t last_position = rows.first_position + (rows.num_rows - 1) / rows.rows_per_token;
  const int64_t end = std::min((segment + 1) * kSegment, last_position + 1);
  const int64_t oldest =
      rows.window_left < 0 ? 0 : std::max<int64_t>(0, rows.first_position - rows.window_left);
  TileBlocks<T> blocks;
  for (int64_t tile = segment * kSegment; tile < end; tile += kTile) {
    if (tile + kTile <= oldest) continue;
    find_blocks(rows, tile, std::max(tile, oldest), std::min(tile + kTile, end), last_position + 1, blocks);
    for (int64_t row = 0; row < rows.num_rows;) {
      const int64_t left = rows.num_rows - row;
      SoftmaxState* s = state + row;
      float* v = values + row * dim;
      if (left > 4) {
        attend_tile<kMaxRows>(rows, row, tile, blocks, s, v);
        row += kMaxRows;
      } else if (left > 2) {
        attend_tile<4>(rows, row, tile, blocks, s, v);
        row += 4;
      } else if (left == 2) {
        attend_tile<2>(rows, row, tile, blocks, s, v);
        row += 2;
      } else {
        attend_tile<1>(rows, row, tile, blocks, s, v);
        row += 1;
      }
    }
  }
}

void attend_segment_f32(const AttentionRows& rows, int64_t segment, SoftmaxState* state, float* values) {
  attend_tiles<float>(rows, segment, state, values);
}
void attend_segment_bf16(const AttentionRows& rows, int64_t segment, SoftmaxState* state, float* values) {
  attend_tiles<uint16_t>(rows, segment, state, values);
}

float exp_one(float x) {
  const F32 d;
  return hn::GetLane(exp_f32(d, hn::Set(d, x)));
}

}  // namespace trireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace trireme::cpu {
HWY_EXPORT(attend_segment_f32);
HWY_EXPORT(attend_segment_bf16);
HWY_EXPORT(exp_one);

void attend_segment(const AttentionRows& rows, int64_t segment, SoftmaxState* state, float* values) {
  if (rows.cache->layout().dtype == DType::f32) {
    HWY_DYNAMIC_DISPATCH(attend_segment_f32)(rows, segment, state, values);
  } else {
    HWY_DYNAMIC_DISPATCH(attend_segment_bf16)(rows, segment, state, values);
  }
}

void merge_segment(SoftmaxState& state, float* values, const SoftmaxState& later, const float* later_values,
                   int64_t count) {
  if (later.sum == 0) return;  // it saw nothing
  if (state.sum == 0) {
    state = later;
    std::copy(later_values, later_values + count, values);
    return;
  }
  const auto exp = HWY_DYNAMIC_DISPATCH(exp_one);
  const float maximum = std::max(state.maximum, later.maximum);
  const float old_factor = exp(state.maximum - maximum), new_factor = exp(later.maximum - maximum);
  state = {maximum, state.sum * old_factor + later.sum * new_factor};
  for (int64_t i = 0; i < count; ++i) values[i] = values[i] * old_factor + later_values[i] * new_factor;
}

}  // namespace trireme::cpu
#endif  // HWY_ONCE
