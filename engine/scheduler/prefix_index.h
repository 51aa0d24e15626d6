#pragma once
// Which cached blocks hold which tokens: a tree of full blocks, found by chained hash, proven by their
// tokens.

#include <cstdint>
#include <vector>

#include "absl/status/status.h"

namespace trireme {

inline constexpr int32_t kNoBlock = -1;

/// Hash of a block in its place: of the hash of the prefix before it (of the salt, at the start) and of its
/// own tokens.
uint64_t hash_block(uint64_t prefix_hash, const int32_t* token_ids, int32_t num_tokens);

/// A node is one full block after one exact prefix. A hash only finds candidates: a node matches when its
/// tokens, its salt and the very node before it are equal, so two prefixes whose hashes collide never share
/// a block. Memory is taken once, at construction. One thread.
class PrefixIndex {
 public:
  using Hash = uint64_t (*)(uint64_t prefix_hash, const int32_t* token_ids, int32_t num_tokens);

  PrefixIndex(int32_t num_blocks, int32_t block_size, Hash hash = hash_block);

  bool contains(int32_t block) const { return nodes_[block].id != 0; }
  int32_t size() const { return size_; }

  /// The block that holds `token_ids` [block_size] right after the block `parent` (kNoBlock: at the start of
  /// a sequence of this salt), or kNoBlock. A parent that is not in the index has no children.
  int32_t find(int32_t parent, uint64_t salt, const int32_t* token_ids) const;
  /// Adds `block`. It must not be in the index, its parent must be, and find() must have failed.
  void insert(int32_t block, int32_t parent, uint64_t salt, const int32_t* token_ids);
  /// Takes `block` out. Children that still are in can no longer be found.
  void erase(int32_t block);

  absl::Status check_integrity() const;

 private:
  struct Node {
    uint64_t id = 0;      // never used twice, so that a child cannot mistake a later tenant of its parent's
                          // block for its parent; 0: not in the index
    uint64_t parent = 0;  // id of the parent; 0: none
    uint64_t salt = 0;
    uint64_t hash = 0;
    int32_t next = kNoBlock;  // in the bucket
  };

  uint64_t child_hash(int32_t parent, uint64_t salt, const int32_t* token_ids) const;
  int32_t& bucket(uint64_t hash) { return buckets_[hash & (buckets_.size() - 1)]; }

  int32_t block_size_;
  Hash hash_;
  int32_t size_ = 0;
  uint64_t last_id_ = 0;
  std::vector<Node> nodes_;         // [num_blocks]
  std::vector<int32_t> token_ids_;  // [num_blocks, block_size]
  std::vector<int32_t> buckets_;    // a power of two
};

}  // namespace trireme
