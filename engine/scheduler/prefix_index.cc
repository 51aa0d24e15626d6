#include "engine/scheduler/prefix_index.h"

#include <algorithm>
#include <bit>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"

namespace trireme {
namespace {

// Finalizer of SplitMix64 (Steele, Lea, Flood 2014): every input bit reaches every output bit.
uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace

uint64_t hash_block(uint64_t prefix_hash, const int32_t* token_ids, int32_t num_tokens) {
  uint64_t hash = mix(prefix_hash + 0x9e3779b97f4a7c15u);
  for (int32_t i = 0; i < num_tokens; ++i)
    hash = mix((hash + 0x9e3779b97f4a7c15u) ^ static_cast<uint32_t>(token_ids[i]));
  return hash;
}

PrefixIndex::PrefixIndex(int32_t num_blocks, int32_t block_size, Hash hash)
    : block_size_(block_size),
      hash_(hash),
      nodes_(num_blocks),
      token_ids_(static_cast<size_t>(num_blocks) * block_size),
      buckets_(std::bit_ceil(static_cast<uint32_t>(std::max(num_blocks, 1))), kNoBlock) {}

uint64_t PrefixIndex::child_hash(int32_t parent, uint64_t salt, const int32_t* token_ids) const {
  return hash_(parent == kNoBlock ? salt : nodes_[parent].hash, token_ids, block_size_);
}

int32_t PrefixIndex::find(int32_t parent, uint64_t salt, const int32_t* token_ids) const {
  if (parent != kNoBlock && !contains(parent)) return kNoBlock;
  const uint64_t hash = child_hash(parent, salt, token_ids);
  const uint64_t parent_id = parent == kNoBlock ? 0 : nodes_[parent].id;
  int32_t block = buckets_[hash & (buckets_.size() - 1)];
  for (; block != kNoBlock; block = nodes_[block].next) {
    const Node& node = nodes_[block];
    if (node.hash == hash && node.parent == parent_id && node.salt == salt &&
        std::equal(token_ids, token_ids + block_size_,
                   token_ids_.begin() + static_cast<size_t>(block) * block_size_))
      return block;
  }
  return kNoBlock;
}

void PrefixIndex::insert(int32_t block, int32_t parent, uint64_t salt, const int32_t* token_ids) {
  TRIREME_CHECK(!contains(block));
  TRIREME_CHECK(parent == kNoBlock || contains(parent));
  Node& node = nodes_[block];
  node.id = ++last_id_;
  node.parent = parent == kNoBlock ? 0 : nodes_[parent].id;
  node.salt = salt;
  node.hash = child_hash(parent, salt, token_ids);
  node.next = bucket(node.hash);
  bucket(node.hash) = block;
  std::copy(token_ids, token_ids + block_size_,
            token_ids_.begin() + static_cast<size_t>(block) * block_size_);
  ++size_;
}

void PrefixIndex::erase(int32_t block) {
  TRIREME_CHECK(contains(block));
  int32_t* link = &bucket(nodes_[block].hash);
  while (*link != block) link = &nodes_[*link].next;
  *link = nodes_[block].next;
  nodes_[block] = Node();
  --size_;
}

absl::Status PrefixIndex::check_integrity() const {
  int32_t reachable = 0;
  for (size_t i = 0; i < buckets_.size(); ++i) {
    for (int32_t block = buckets_[i]; block != kNoBlock; block = nodes_[block].next) {
      if (!contains(block) || (nodes_[block].hash & (buckets_.size() - 1)) != i)
        return absl::InternalError(absl::StrCat("prefix index: block ", block, " is in a wrong bucket"));
      if (++reachable > size_) break;
    }
  }
  if (reachable != size_)
    return absl::InternalError(absl::StrCat("prefix index: ", reachable, " nodes reachable, wanted ", size_));
  return absl::OkStatus();
}

}  // namespace trireme
