#include "engine/scheduler/block_manager.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"

namespace trireme {

BlockManager::BlockManager(const BlockManagerConfig& config)
    : config_(config),
      index_(config.num_blocks, config.block_size, config.hash),
      ref_counts_(config.num_blocks, 0),
      links_(config.num_blocks + 1) {
  CHECK_GE(config.num_blocks, 0);
  CHECK_GE(config.block_size, 1);
  links_[head()] = {head(), head()};
  empty_.reserve(config.num_blocks);
  for (int32_t block = config.num_blocks - 1; block >= 0; --block) empty_.push_back(block);
  free_states_.reserve(config.num_states);
  for (int32_t state = config.num_states - 1; state >= 0; --state) free_states_.push_back(state);
}

void BlockManager::link_last(int32_t block) {
  const int32_t last = links_[head()].previous;
  links_[block] = {last, head()};
  links_[last].next = block;
  links_[head()].previous = block;
  ++num_cached_;
}

void BlockManager::unlink(int32_t block) {
  links_[links_[block].previous].next = links_[block].next;
  links_[links_[block].next].previous = links_[block].previous;
  links_[block] = Links();
  --num_cached_;
}

int32_t BlockManager::allocate() {
  int32_t block = kNoBlock;
  if (!empty_.empty()) {
    block = empty_.back();
    empty_.pop_back();
  } else if (num_cached_ > 0) {
    block = links_[head()].next;
    unlink(block);
    index_.erase(block);
  } else {
    return kNoBlock;
  }
  ref_counts_[block] = 1;
  ++num_references_;
  return block;
}

void BlockManager::retain(int32_t block) {
  if (is_cached(block)) unlink(block);
  ++ref_counts_[block];
  ++num_references_;
}

void BlockManager::release(int32_t block) {
  CHECK_GE(ref_counts_[block], 1);
  --num_references_;
  if (--ref_counts_[block] > 0) return;
  if (index_.contains(block)) {
    if (config_.enable_prefix_cache) return link_last(block);
    index_.erase(block);
  }
  empty_.push_back(block);
}

void BlockManager::release_table(std::vector<int32_t>& table) {
  for (; !table.empty(); table.pop_back()) release(table.back());
}

std::optional<int32_t> BlockManager::open_table(const int32_t* token_ids, int32_t num_tokens, uint64_t salt,
                                                int32_t num_spare, std::vector<int32_t>& table,
                                                int32_t max_cached) {
  TRIREME_CHECK(table.empty());
  CHECK_GE(num_tokens, 1);
  int32_t num_taken = 0;  // of the matched, those that are free until now
  const int32_t num_shareable = std::min(num_tokens - 1, max_cached) / config_.block_size;
  while (static_cast<int32_t>(table.size()) < num_shareable) {
    const int32_t parent = table.empty() ? kNoBlock : table.back();
    const int32_t block = index_.find(parent, salt, token_ids + table.size() * config_.block_size);
    if (block == kNoBlock) break;
    if (ref_counts_[block] == 0) ++num_taken;
    table.push_back(block);
  }
  const int32_t num_matched = static_cast<int32_t>(table.size());
  const int32_t num_new = blocks_for(num_tokens) - num_matched;
  if (num_free() - num_taken - num_new < num_spare) {
    table.clear();
    return std::nullopt;
  }
  for (int32_t block : table) retain(block);
  for (int32_t i = 0; i < num_new; ++i) table.push_back(allocate());
  return num_matched * config_.block_size;
}

bool BlockManager::publish(std::vector<int32_t>& table, int32_t index, uint64_t salt,
                           const int32_t* token_ids, bool replace) {
  const int32_t parent = index == 0 ? kNoBlock : table[index - 1];
  if (parent != kNoBlock && !index_.contains(parent)) return false;
  const int32_t known = index_.find(parent, salt, token_ids);
  if (known == table[index]) return true;
  if (known == kNoBlock) {
    // In already, under a parent that was forgotten: nobody finds it there, nor may it be in twice.
    if (index_.contains(table[index])) return false;
    index_.insert(table[index], parent, salt, token_ids);
    return true;
  }
  if (!replace) return false;
  retain(known);
  release(table[index]);
  table[index] = known;
  return true;
}

void BlockManager::forget(const std::vector<int32_t>& table) {
  for (int32_t block : table) {
    CHECK_GE(ref_counts_[block], 1);
    if (index_.contains(block)) index_.erase(block);
  }
}

int32_t BlockManager::allocate_state() {
  if (free_states_.empty()) return -1;
  const int32_t state = free_states_.back();
  free_states_.pop_back();
  return state;
}

void BlockManager::release_state(int32_t state) {
  CHECK_GE(state, 0);
  CHECK_LT(state, config_.num_states);
  free_states_.push_back(state);
}

absl::Status BlockManager::check_references(const std::vector<const std::vector<int32_t>*>& tables) const {
  std::vector<int32_t> counted(config_.num_blocks, 0);
  int64_t num_references = 0;
  for (const std::vector<int32_t>* table : tables) {
    num_references += static_cast<int64_t>(table->size());
    for (int32_t block : *table) {
      if (block < 0 || block >= config_.num_blocks)
        return absl::InternalError(absl::StrCat("block manager: a table names block ", block));
      ++counted[block];
    }
  }
  for (int32_t block = 0; block < config_.num_blocks; ++block) {
    if (counted[block] != ref_counts_[block])
      return absl::InternalError(absl::StrCat("block manager: block ", block, " counts ", ref_counts_[block],
                                              " references, its tables are ", counted[block]));
  }
  if (num_references != num_references_)
    return absl::InternalError(absl::StrCat("block manager: counted ", num_references_,
                                            " references, the tables have ", num_references));
  return absl::OkStatus();
}

absl::Status BlockManager::check_lists() const {
  std::vector<int32_t> seen(config_.num_blocks, 0);
  for (int32_t block : empty_) {
    if (ref_counts_[block] != 0 || index_.contains(block))
      return absl::InternalError(
          absl::StrCat("block manager: block ", block, " is listed as empty, but used"));
    ++seen[block];
  }
  int32_t num_linked = 0;
  for (int32_t block = links_[head()].next; block != head(); block = links_[block].next) {
    if (!is_cached(block) || links_[links_[block].next].previous != block)
      return absl::InternalError(
          absl::StrCat("block manager: block ", block, " is wrongly listed as cached"));
    ++seen[block];
    if (++num_linked > num_cached_) break;
  }
  if (num_linked != num_cached_)
    return absl::InternalError(
        absl::StrCat("block manager: ", num_linked, " blocks listed as cached, counted ", num_cached_));
  for (int32_t block = 0; block < config_.num_blocks; ++block) {
    if (seen[block] != (ref_counts_[block] == 0 ? 1 : 0))
      return absl::InternalError(absl::StrCat("block manager: block ", block, " with ", ref_counts_[block],
                                              " references is listed as free ", seen[block], " times"));
  }
  return absl::OkStatus();
}

absl::Status BlockManager::check_integrity(const std::vector<const std::vector<int32_t>*>& tables,
                                           const std::vector<int32_t>& states) const {
  if (absl::Status status = check_references(tables); !status.ok()) return status;
  if (absl::Status status = check_lists(); !status.ok()) return status;
  std::vector<int32_t> seen(config_.num_states, 0);
  for (int32_t state : free_states_) ++seen[state];
  for (int32_t state : states) {
    if (state < 0 || state >= config_.num_states)
      return absl::InternalError(absl::StrCat("block manager: a sequence holds state ", state));
    ++seen[state];
  }
  for (int32_t state = 0; state < config_.num_states; ++state) {
    if (seen[state] != 1)
      return absl::InternalError(
          absl::StrCat("block manager: state ", state, " is held ", seen[state], " times, wanted once"));
  }
  return index_.check_integrity();
}

}  // namespace trireme
