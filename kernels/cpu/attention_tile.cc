#include "kernels/cpu/attention_tile.h"

#include <algorithm>
#include <cmath>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention_tile.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/cpu/exp-inl.h"

HWY_BEFORE_NAMESPACE();
namespace trireme::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using F32 = hn::CappedTag<float, 16>;
constexpr int64_t kLanes = static_cast<int64_t>(hn::MaxLanes(F32()));
constexpr int kGroupVectors = static_cast<int>(kTokenGroup / kLanes);
constexpr int64_t kMaxRows = 8;  // query rows worked on at once
constexpr int64_t kScoreStride =
    kTile + kTokenGroup;  // a group may begin up to 15 tokens before the tile's end

/// A vector of keys (dim, tokens of vector v), and of dim + 1.
struct Pair {
  hn::Vec<F32> even, odd;
};
HWY_INLINE Pair load_keys(const float* group, int64_t dim, int v) {
  const F32 d;
  const float* at = group + dim * kTokenGroup + v * kLanes;
  return {hn::Load(d, at), hn::Load(d, at + kTokenGroup)};
}
HWY_INLINE Pair load_keys(const uint16_t* group, int64_t dim, int v) {
  const F32 d;
  const hn::Rebind<uint32_t, F32> du;
  const auto both = hn::Load(du, reinterpret_cast<const uint32_t*>(group + dim * kTokenGroup) + v * kLanes);
  return {hn::BitCast(d, hn::ShiftLeft<16>(both)), hn::BitCast(d, hn::And(both, hn::Set(du, 0xffff0000u)))};
}
HWY_INLINE hn::Vec<F32> load_values(const float* at) { return hn::Load(F32(), at); }
HWY_INLINE hn::Vec<F32> load_values(const uint16_t* at) {
  const hn::Rebind<uint32_t, F32> du;
  const hn::Rebind<uint16_t, F32> dh;
  return hn::BitCast(F32(), hn::ShiftLeft<16>(hn::PromoteTo(du, hn::Load(dh, at))));
}

/// scores[r][16] = q[r] · keys of one group of 16 tokens; each score is summed over the dimensions in order.
template <int kRows, typename T>
HWY_INLINE void score_group(const float* q, int64_t q_stride, int64_t dims, const T* group, float* scores) {
  const F32 d;
  hn::Vec<F32> s[kRows][kGroupVectors];
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kGroupVectors; ++v) s[r][v] = hn::Zero(d);
  for (int64_t i = 0; i < dims; i += 2) {
    Pair keys[kGroupVectors];
    for (int v = 0; v < kGroupVectors; ++v) keys[v] = load_keys(group, i, v);
    for (int r = 0; r < kRows; ++r) {
      const auto q0 = hn::Set(d, q[r * q_stride + i]), q1 = hn::Set(d, q[r * q_stride + i + 1]);
      for (int v = 0; v < kGroupVectors; ++v)
        s[r][v] = hn::MulAdd(q1, keys[v].odd, hn::MulAdd(q0, keys[v].even, s[r][v]));
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kGroupVectors; ++v) hn::StoreU(s[r][v], d, scores + r * kScoreStride + v * kLanes);
}

/// sums[r][kVectors] += sum over tokens of p[r][token] * values of `kVectors` vectors of dimensions.
template <int kRows, int kVectors, typename T>
HWY_INLINE void add_values(const float* p, const T* values, int64_t value_stride, int64_t tokens, float* sums,
                           int64_t sums_stride) {
  const F32 d;
  hn::Vec<F32> s[kRows][kVectors];
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v) s[r][v] = hn::Load(d, sums + r * sums_stride + v * kLanes);
  for (int64_t t = 0; t < tokens; ++t) {
    hn::Vec<F32> row[kVectors];
    for (int v = 0; v < kVectors; ++v) row[v] = load_values(values + t * value_stride + v * kLanes);
    for (int r = 0; r < kRows; ++r) {
      const auto weight = hn::Set(d, p[r * kScoreStride + t]);
      for (int v = 0; v < kVectors; ++v) s[r][v] = hn::MulAdd(weight, row[v], s[r][v]);
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v) hn::Store(s[r][v], d, sums + r * sums_stride + v * kLanes);
}

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
  int64_t first, last;  // positions
};
HWY_INLINE TileRange visible(const AttentionRows& rows, int64_t row, int64_t begin, int64_t end) {
  const int64_t position = rows.first_position + row / rows.rows_per_token;
  const int64_t oldest = rows.window_left < 0 ? 0 : std::max<int64_t>(0, position - rows.window_left);
  const int64_t first = std::max(begin, oldest);
  return {first, std::max(first, std::min(end, position + 1))};
}

/// One tile for kRows rows. Scores and weights of positions that a row does not see are zero weights.
template <int kRows, typename T>
void attend_tile(const AttentionRows& rows, int64_t row, int64_t tile, SoftmaxState* state, float* values) {
  const KvLayout& layout = rows.cache->layout();
  const F32 d;
  TileRange range[kRows];
  TileRange all = {tile + kTile, tile};
  for (int r = 0; r < kRows; ++r) {
    range[r] = visible(rows, row + r, tile, tile + kTile);
    if (range[r].first == range[r].last) continue;
    all = {std::min(all.first, range[r].first), std::max(all.last, range[r].last)};
  }
  if (all.first >= all.last) return;
  HWY_ALIGN float scores[kRows * kScoreStride];
  const int64_t block_size = layout.block_size;
  const float* q = rows.q + row * rows.q_stride;
  for (int64_t at = all.first / block_size * block_size; at < all.last; at += block_size) {
    const T* head = rows.cache->head<T>(rows.layer, rows.block_table[at / block_size], rows.kv_head);
    for (int64_t token = 0; token < block_size; token += kTokenGroup) {
      const int64_t position = at + token;
      if (position + kTokenGroup <= all.first || position >= all.last) continue;
      const T* group = head + token / kTokenGroup * layout.group_elements();
      if (position >= tile) {
        score_group<kRows>(q, rows.q_stride, layout.key_dim, group, scores + (position - tile));
      } else {  // a block across the tile's border: only the part inside counts
        HWY_ALIGN float apart[kRows * kScoreStride];
        score_group<kRows>(q, rows.q_stride, layout.key_dim, group, apart);
        for (int r = 0; r < kRows; ++r) {
          std::copy(apart + r * kScoreStride + (tile - position), apart + r * kScoreStride + kTokenGroup,
                    scores + r * kScoreStride);
        }
      }
    }
  }
  const int64_t begin = (all.first - tile) / kTokenGroup * kTokenGroup;
  const int64_t end = round_up(all.last - tile, kTokenGroup);
  for (int r = 0; r < kRows; ++r) {
    float* row_scores = scores + r * kScoreStride;
    const int64_t first = range[r].first - tile, last = range[r].last - tile;
    if (first == last) {
      std::fill(row_scores + begin, row_scores + end, 0.0f);
      continue;
    }
    if (rows.softcap != 0) cap_scores(row_scores + first, last - first, rows.softcap);
    const float factor = exponentiate(row_scores, begin, end, first, last, state[r]);
    const auto factors = hn::Set(d, factor);
    float* row_values = values + r * layout.value_dim;
    for (int64_t i = 0; i < layout.value_dim; i += kLanes)
      hn::Store(hn::Mul(hn::Load(d, row_values + i), factors), d, row_values + i);
  }
  for (int64_t at = all.first; at < all.last;) {
    const int64_t token = at % block_size, count = std::min(block_size - token, all.last - at);
    const T* from = rows.cache->head<T>(rows.layer, rows.block_table[at / block_size], rows.kv_head) +
                    layout.value_offset() + token * layout.value_dim;
    constexpr int kVectors = kRows <= 4 && kLanes == 16 ? 4 : kLanes == 16 ? 2 : 1;
    int64_t i = 0;
    for (; i + kVectors * kLanes <= layout.value_dim; i += kVectors * kLanes)
      add_values<kRows, kVectors>(scores + (at - tile), from + i, layout.value_dim, count, values + i,
                                  layout.value_dim);
    for (; i < layout.value_dim; i += kLanes)
      add_values<kRows, 1>(scores + (at - tile), from + i, layout.value_dim, count, values + i,
                           layout.value_dim);
    at += count;
  }
}

template <typename T>
void attend_tiles(const AttentionRows& rows, int64_t segment, SoftmaxState* state, float* values) {
  const int64_t dim = rows.cache->layout().value_dim;
  const float lowest = -std::numeric_limits<float>::infinity();
  std::fill(state, state + rows.num_rows, SoftmaxState{lowest, 0});
  std::fill(values, values + rows.num_rows * dim, 0.0f);
  const int64_t last_position = rows.first_position + (rows.num_rows - 1) / rows.rows_per_token;
  const int64_t end = std::min((segment + 1) * kSegment, last_position + 1);
  for (int64_t tile = segment * kSegment; tile < end; tile += kTile) {
    int64_t row = 0;
    for (; row + 8 <= rows.num_rows; row += 8)
      attend_tile<8, T>(rows, row, tile, state + row, values + row * dim);
    for (; row + 4 <= rows.num_rows; row += 4)
      attend_tile<4, T>(rows, row, tile, state + row, values + row * dim);
    for (; row < rows.num_rows; ++row) attend_tile<1, T>(rows, row, tile, state + row, values + row * dim);
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
