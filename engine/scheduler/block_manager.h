#pragma once
// Who holds which block of the KV cache. Integers only; the bytes are the backend's. One thread.

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "engine/scheduler/prefix_index.h"

namespace trireme {

struct BlockManagerConfig {
  int32_t num_blocks = 0;
  int32_t block_size = 16;              // tokens
  int32_t num_states = 0;               // fixed-size per-sequence states: sequence slots
  bool enable_prefix_cache = true;      // false: a block is shared only as long as somebody holds it
  PrefixIndex::Hash hash = hash_block;  // replaced in tests, to make collisions common
};

/// Two kinds of resource, counted and freed by the same rules: blocks, of which a sequence holds a table that
/// grows, and states, of which it holds one.
///
/// A block is empty (free, worthless), cached (free, but holds a prefix that a later request may take up), or
/// referenced by one or more tables. Only full blocks are ever cached or shared. They are never written
/// again, so nothing needs copying on write: samples of one prompt share its full blocks as any two equal
/// prefixes do, and each fills the last, partly filled one for itself. Blocks are taken from the empty ones
/// first, then from the cached one that was released longest ago; tables are released from their end, so a
/// leaf goes before its parents.
///
/// Steps run in the order in which they were scheduled. So a block may be released, and given away in the
/// next plan, while a plan that reads it is still running.
class BlockManager {
 public:
  explicit BlockManager(const BlockManagerConfig& config);

  int32_t num_free() const { return num_empty() + num_cached_; }  // what allocate() can still give
  int32_t num_cached() const { return num_cached_; }
  int64_t num_references() const { return num_references_; }  // of all tables together
  int32_t ref_count(int32_t block) const { return ref_counts_[block]; }
  int32_t blocks_for(int64_t num_tokens) const {
    return static_cast<int32_t>((num_tokens + config_.block_size - 1) / config_.block_size);
  }

  /// One block with one reference; kNoBlock when none is free.
  int32_t allocate();
  void release(int32_t block);
  /// Releases every block, last one first, and empties the table.
  void release_table(std::vector<int32_t>& table);

  /// Fills the empty `table` with blocks for all `num_tokens` tokens: those of the longest cached prefix of
  /// at most `max_cached` tokens, then new ones. At least the last token is left to compute. Returns how many
  /// tokens are cached, or nullopt (and changes nothing) when fewer than `num_spare` free blocks would
  /// remain.
  std::optional<int32_t> open_table(const int32_t* token_ids, int32_t num_tokens, uint64_t salt,
                                    int32_t num_spare, std::vector<int32_t>& table,
                                    int32_t max_cached = INT32_MAX);
  /// Makes block `index` of the table findable: it is full, and `token_ids` [block_size] are its tokens. When
  /// an equal block is in the cache already and `replace` is set, the table takes that one up and gives its
  /// own back. Returns whether block `index` is in the cache now; then block index + 1 may follow.
  bool publish(std::vector<int32_t>& table, int32_t index, uint64_t salt, const int32_t* token_ids,
               bool replace);
  /// Takes the table's blocks out of the cache: their contents are not to be trusted.
  void forget(const std::vector<int32_t>& table);

  /// A state in [0, num_states), or -1 when all are taken.
  int32_t allocate_state();
  void release_state(int32_t state);
  int32_t num_free_states() const { return static_cast<int32_t>(free_states_.size()); }

  /// Every block is empty, cached or referenced; references are those of `tables`, states in use are
  /// `states`. INTERNAL naming the block and what is wrong with it.
  absl::Status check_integrity(const std::vector<const std::vector<int32_t>*>& tables,
                               const std::vector<int32_t>& states) const;

 private:
  // Neighbours in the list of cached blocks, least recently used first; one more entry is the list's head.
  struct Links {
    int32_t previous = kNoBlock;
    int32_t next = kNoBlock;
  };

  int32_t num_empty() const { return static_cast<int32_t>(empty_.size()); }
  int32_t head() const { return config_.num_blocks; }
  bool is_cached(int32_t block) const { return ref_counts_[block] == 0 && index_.contains(block); }
  void retain(int32_t block);
  void link_last(int32_t block);
  void unlink(int32_t block);
  absl::Status check_references(const std::vector<const std::vector<int32_t>*>& tables) const;
  absl::Status check_lists() const;

  BlockManagerConfig config_;
  PrefixIndex index_;
  std::vector<int32_t> ref_counts_;  // [num_blocks]
  std::vector<int32_t> empty_;       // a stack: the warmest is reused first
  std::vector<Links> links_;         // [num_blocks + 1]
  int32_t num_cached_ = 0;
  int64_t num_references_ = 0;
  std::vector<int32_t> free_states_;
};

}  // namespace trireme
