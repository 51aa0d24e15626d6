#pragma once
// Layout of the KV cache on the CPU.
//   [layer][block][kv_head] then, for one head of one block:
//   K  [group of 16 tokens][head_dim / 2][16 tokens][2]  (f32: [group][head_dim][16 tokens])
//   V  [block_size][value_dim], value_dim = head_dim rounded up to 16
// Tokens lie side by side in K, so q·k of 16 tokens is a chain of multiply-adds without a sum over lanes;
// bf16 keeps neighbouring dimensions together, so that one load widens into two vectors of 16 tokens. Padding
// stays zero.

#include <cstdint>
#include <utility>

#include "kernels/backend.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/round_up.h"

namespace trireme::cpu {

inline constexpr int64_t kTokenGroup = 16;

struct KvLayout {
  explicit KvLayout(const KvCacheSpec& spec)
      : block_size(spec.block_size),
        num_kv_heads(spec.num_kv_heads),
        groups((spec.block_size + kTokenGroup - 1) / kTokenGroup),
        key_dim(round_up(spec.head_dim, 2)),
        value_dim(round_up(spec.head_dim, kTokenGroup)),
        dtype(spec.dtype) {}

  int64_t group_elements() const { return key_dim * kTokenGroup; }
  int64_t value_offset() const { return groups * group_elements(); }
  /// Rounded up so that every head begins on a cache line.
  int64_t head_elements() const { return round_up(value_offset() + block_size * value_dim, 32); }
  int64_t block_elements() const { return num_kv_heads * head_elements(); }
  size_t block_bytes() const { return static_cast<size_t>(block_elements()) * dtype_bytes(dtype); }
  /// Of K element (token, dim) within one head of one block.
  int64_t key_offset(int64_t token, int64_t dim) const {
    const int64_t group = token / kTokenGroup * group_elements(), lane = token % kTokenGroup;
    return dtype == DType::bf16 ? group + dim / 2 * (2 * kTokenGroup) + lane * 2 + dim % 2
                                : group + dim * kTokenGroup + lane;
  }

  int64_t block_size, num_kv_heads, groups, key_dim, value_dim;
  DType dtype;
};

class CpuKvCache final : public KvCache {
 public:
  CpuKvCache(const KvCacheSpec& spec, int64_t num_blocks, HostMemory memory)
      : KvCache(spec, num_blocks), layout_(spec), memory_(std::move(memory)) {}
  const KvLayout& layout() const { return layout_; }
  /// The first K element of one head of one block.
  template <typename T>
  T* head(int layer, int64_t block, int64_t kv_head) const {
    return static_cast<T*>(memory_.data()) +
           ((layer * num_blocks() + block) * layout_.num_kv_heads + kv_head) * layout_.head_elements();
  }

 private:
  KvLayout layout_;
  HostMemory memory_;
};

}  // namespace trireme::cpu
