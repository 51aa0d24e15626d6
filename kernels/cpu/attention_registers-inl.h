// The innermost loops of attention over one tile: scores and weighted sums that stay in registers. Per-target
// helper, included once for each of Highway's targets.

#if defined(TRIREME_ATTENTION_REGISTERS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TRIREME_ATTENTION_REGISTERS_INL_H_
#undef TRIREME_ATTENTION_REGISTERS_INL_H_
#else
#define TRIREME_ATTENTION_REGISTERS_INL_H_
#endif

#include <algorithm>

#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "kernels/check.h"
#include "kernels/cpu/attention_tile.h"

HWY_BEFORE_NAMESPACE();
namespace trireme::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using F32 = hn::CappedTag<float, 16>;
constexpr int64_t kLanes = static_cast<int64_t>(hn::MaxLanes(F32()));
constexpr int kGroupVectors = static_cast<int>(kTokenGroup / kLanes);
constexpr int kMaxRows = 8;                                // query rows worked on at once
constexpr int64_t kScoreStride = kTile + 2 * kTokenGroup;  // a group may reach over either border of the tile

/// Blocks of values, or groups of keys, that are asked for before they are needed: about what arrives in the
/// time that memory takes to answer.
constexpr int kAhead = 4;

/// Groups of 16 tokens whose scores fit the registers together with those of kRows rows.
template <int kRows>
constexpr int kGroupsAtOnce = kLanes == 16 ? std::min(8, 16 / kRows) : 1;

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

/// The part of a tile that lies in the cache: groups of keys and blocks of values, in order of position.
template <typename T>
struct TileBlocks {
  // A group ends where its block ends, so a block size of 1 gives a group for each token.
  const T* keys[kTile + 1];
  int32_t key_offset[kTile + 1];  // of the group's first token from the tile's
  const T* values[kTile + 1];
  int32_t value_offset[kTile + 1];
  int num_groups = 0, num_blocks = 0;
  const T* ahead[kAhead];  // where the first groups after these positions lie, to be fetched early
};

/// Positions [first, last) of a tile; `end` is the end of all that will be read.
template <typename T>
void find_blocks(const AttentionRows& rows, int64_t tile, int64_t first, int64_t last, int64_t end,
                 TileBlocks<T>& blocks) {
  const KvLayout& layout = rows.cache->layout();
  const int64_t size = layout.block_size;
  blocks.num_groups = blocks.num_blocks = 0;
  for (int64_t at = first / size * size; at < last; at += size) {
    const int64_t block = rows.block_table[at / size];
    TRIREME_CHECK(block >= 0 && block < rows.cache->num_blocks());
    const T* head = rows.cache->head<T>(rows.layer, block, rows.kv_head);
    blocks.values[blocks.num_blocks] = head + layout.value_offset();
    blocks.value_offset[blocks.num_blocks++] = static_cast<int32_t>(at - tile);
    for (int64_t token = 0; token < size && at + token < last; token += kTokenGroup) {
      if (at + token + kTokenGroup <= first) continue;
      blocks.keys[blocks.num_groups] = head + token / kTokenGroup * layout.group_elements();
      blocks.key_offset[blocks.num_groups++] = static_cast<int32_t>(at + token - tile);
    }
  }
  for (int i = 0; i < kAhead; ++i) {
    const int64_t at = std::min(last + i * kTokenGroup, end - 1);
    blocks.ahead[i] = rows.cache->head<T>(rows.layer, rows.block_table[at / size], rows.kv_head) +
                      at % size / kTokenGroup * layout.group_elements();
  }
}

/// scores[r][offset, offset + 16) = q[r] · keys of each of kGroups groups; each score is summed over the
/// dimensions in order. Asks for the keys of the groups in `next` meanwhile.
template <int kRows, int kGroups, typename T>
HWY_INLINE void score_groups(const float* q, int64_t q_stride, int64_t dims, const T* const* keys,
                             const T* const* next, const int32_t* offsets, float* scores) {
  const F32 d;
  constexpr int kVectors = kGroups * kGroupVectors;
  constexpr int64_t kStep = kTokenGroup * static_cast<int64_t>(sizeof(T));  // bytes of a dimension
  hn::Vec<F32> s[kRows][kVectors];
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v) s[r][v] = hn::Zero(d);
  for (int64_t i = 0; i < dims; i += 2) {
    Pair pairs[kVectors];
    for (int g = 0; g < kGroups; ++g) {
      for (int64_t byte = 0; byte < 2 * kStep; byte += 64)
        hwy::Prefetch(reinterpret_cast<const char*>(next[g]) + i * kStep + byte);
      for (int v = 0; v < kGroupVectors; ++v) pairs[g * kGroupVectors + v] = load_keys(keys[g], i, v);
    }
    for (int r = 0; r < kRows; ++r) {
      const auto q0 = hn::Set(d, q[r * q_stride + i]), q1 = hn::Set(d, q[r * q_stride + i + 1]);
      for (int v = 0; v < kVectors; ++v)
        s[r][v] = hn::MulAdd(q1, pairs[v].odd, hn::MulAdd(q0, pairs[v].even, s[r][v]));
    }
  }
  for (int g = 0; g < kGroups; ++g) {
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < kGroupVectors; ++v)
        hn::StoreU(s[r][g * kGroupVectors + v], d, scores + r * kScoreStride + offsets[g] + v * kLanes);
    }
  }
}

/// Scores of the groups that reach into [first, last) of the tile.
template <int kRows, typename T>
HWY_INLINE void score_tile(const AttentionRows& rows, const float* q, const TileBlocks<T>& blocks,
                           int64_t first, int64_t last, float* scores) {
  constexpr int kAtOnce = kGroupsAtOnce<kRows>;
  const int64_t dims = rows.cache->layout().key_dim;
  int begin = 0, end = blocks.num_groups;
  while (begin < end && blocks.key_offset[begin] + kTokenGroup <= first) ++begin;
  while (end > begin && blocks.key_offset[end - 1] >= last) --end;
  int g = begin;
  for (; g + kAtOnce <= end; g += kAtOnce) {
    // After the last groups come the first values.
    const T* const* next = g + 2 * kAtOnce <= end         ? blocks.keys + g + kAtOnce
                           : blocks.num_blocks >= kAtOnce ? blocks.values
                                                          : blocks.keys + g;
    score_groups<kRows, kAtOnce>(q, rows.q_stride, dims, blocks.keys + g, next, blocks.key_offset + g,
                                 scores);
  }
  for (; g < end; ++g) {
    score_groups<kRows, 1>(q, rows.q_stride, dims, blocks.keys + g, blocks.keys + g, blocks.key_offset + g,
                           scores);
  }
}

/// sums[r][0, kVectors vectors) += the sum over positions [first, last) of the tile, in order, of p[r] *
/// values, whose columns begin at `column`. Asks for the block after each one meanwhile.
template <int kRows, int kVectors, typename T>
HWY_INLINE void add_values(const float* p, const TileBlocks<T>& blocks, int64_t block_size, int64_t value_dim,
                           int64_t column, int64_t first, int64_t last, float* sums) {
  const F32 d;
  hn::Vec<F32> s[kRows][kVectors];
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v) s[r][v] = hn::Load(d, sums + r * value_dim + column + v * kLanes);
  for (int b = 0; b < blocks.num_blocks; ++b) {
    const int64_t start = blocks.value_offset[b];
    const T* values = blocks.values[b] - start * value_dim + column;
    const int later = b + kAhead;
    const T* next =
        (later < blocks.num_blocks ? blocks.values[later] : blocks.ahead[later - blocks.num_blocks]) -
        start * value_dim + column;
    const int64_t end = std::min(last, start + block_size);
    for (int64_t t = std::max(first, start); t < end; ++t) {
      hn::Vec<F32> row[kVectors];
      for (int v = 0; v < kVectors; ++v) row[v] = load_values(values + t * value_dim + v * kLanes);
      for (int v = 0; v < kVectors; v += 2) hwy::Prefetch(next + t * value_dim + v * kLanes);
      for (int r = 0; r < kRows; ++r) {
        const auto weight = hn::Set(d, p[r * kScoreStride + t]);
        for (int v = 0; v < kVectors; ++v) s[r][v] = hn::MulAdd(weight, row[v], s[r][v]);
      }
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v) hn::Store(s[r][v], d, sums + r * value_dim + column + v * kLanes);
}

}  // namespace trireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
