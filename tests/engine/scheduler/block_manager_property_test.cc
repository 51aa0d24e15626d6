// The block manager against a model so simple that it is right: it keeps whole prefixes, and counts by hand.

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <vector>

#include "engine/scheduler/block_manager.h"
#include "tests/testing/property.h"

namespace trireme {
namespace {

using Tokens = std::vector<int32_t>;

struct Owner {
  std::vector<int32_t> table;
  Tokens tokens;
  uint64_t salt = 0;
  int32_t num_published = 0;
};

struct Operation {
  int kind = 0;
  int first = 0;
  int second = 0;
};

void showValue(const Operation& operation, std::ostream& os) {
  os << "{" << operation.kind << ", " << operation.first << ", " << operation.second << "}";
}

uint64_t weak_hash(uint64_t prefix_hash, const int32_t* token_ids, int32_t num_tokens) {
  return hash_block(prefix_hash, token_ids, num_tokens) % 3;
}

class Model {
 public:
  explicit Model(const BlockManagerConfig& config) : config_(config), manager_(config) {}

  void apply(const Operation& operation) {
    const int kind = operation.kind;
    if (kind < 6)
      open(operation);
    else if (kind < 12)
      publish(operation);
    else if (kind < 19)
      close(operation);
    else
      forget(operation);
    check();
  }

  void close_all() {
    while (!owners_.empty()) close({});
    check();
    RC_ASSERT(manager_.num_free() == config_.num_blocks);
    RC_ASSERT(config_.enable_prefix_cache || manager_.num_cached() == 0);
  }

 private:
  Owner* pick(const Operation& operation) {
    return owners_.empty() ? nullptr : &owners_[operation.first % owners_.size()];
  }

  Tokens prefix(const Owner& owner, int32_t num_blocks) const {
    return Tokens(owner.tokens.begin(), owner.tokens.begin() + num_blocks * config_.block_size);
  }

  void open(const Operation& operation) {
    Owner owner;
    owner.salt = operation.second % 2;
    const int num_tokens = 1 + operation.first % (4 * config_.block_size);
    for (int i = 0; i < num_tokens; ++i) owner.tokens.push_back(operation.second / 2 % (i + 2) % 3);
    const int32_t free_before = manager_.num_free();
    const int32_t spare = operation.second % 3;
    const auto num_cached =
        manager_.open_table(owner.tokens.data(), num_tokens, owner.salt, spare, owner.table);
    if (!num_cached) {
      RC_ASSERT(owner.table.empty());
      RC_ASSERT(manager_.num_free() == free_before);
      RC_ASSERT(manager_.num_free() - manager_.blocks_for(num_tokens) < spare);
      return;
    }
    RC_ASSERT(manager_.num_free() >= spare);
    RC_ASSERT(*num_cached < num_tokens);
    RC_ASSERT(*num_cached % config_.block_size == 0);
    owner.num_published = *num_cached / config_.block_size;
    // What is shared holds exactly this prefix; what is new belongs to nobody else.
    for (int32_t i = 0; i < static_cast<int32_t>(owner.table.size()); ++i) {
      if (i < owner.num_published)
        RC_ASSERT(contents_.at(owner.table[i]) == std::make_pair(owner.salt, prefix(owner, i + 1)));
      else
        RC_ASSERT(manager_.ref_count(owner.table[i]) == 1);
      if (i >= owner.num_published) contents_.erase(owner.table[i]);
    }
    owners_.push_back(owner);
  }

  void publish(const Operation& operation) {
    Owner* owner = pick(operation);
    if (owner == nullptr) return;
    const int32_t i = owner->num_published;
    if ((i + 1) * config_.block_size > static_cast<int32_t>(owner->tokens.size())) return;
    const int32_t before = owner->table[i];
    const bool replace = operation.second % 2 == 0;
    if (!manager_.publish(owner->table, i, owner->salt, owner->tokens.data() + i * config_.block_size,
                          replace)) {
      RC_ASSERT(owner->table[i] == before);
      return;
    }
    if (owner->table[i] == before)
      contents_[before] = {owner->salt, prefix(*owner, i + 1)};
    else
      RC_ASSERT(replace &&
                contents_.at(owner->table[i]) == std::make_pair(owner->salt, prefix(*owner, i + 1)));
    ++owner->num_published;
  }

  void close(const Operation& operation) {
    Owner* owner = pick(operation);
    if (owner == nullptr) return;
    manager_.release_table(owner->table);
    owners_.erase(owners_.begin() + (owner - owners_.data()));
  }

  void forget(const Operation& operation) {
    Owner* owner = pick(operation);
    if (owner == nullptr || operation.second % 4 != 0) return;
    manager_.forget(owner->table);
    for (int32_t block : owner->table) contents_.erase(block);
  }

  void check() {
    std::vector<const std::vector<int32_t>*> tables;
    std::set<int32_t> used;
    for (const Owner& owner : owners_) {
      tables.push_back(&owner.table);
      used.insert(owner.table.begin(), owner.table.end());
    }
    require_ok(manager_.check_integrity(tables, {}));
    RC_ASSERT(manager_.num_free() == config_.num_blocks - static_cast<int32_t>(used.size()));
  }

  BlockManagerConfig config_;
  BlockManager manager_;
  std::vector<Owner> owners_;
  std::map<int32_t, std::pair<uint64_t, Tokens>> contents_;  // salt and whole prefix of each published block
};

// RapidCheck narrows every range in the first, small cases. Here only the number of operations grows.
rc::Gen<int> any_of(int first, int last) {
  return rc::gen::resize(rc::kNominalSize, rc::gen::inRange(first, last + 1));
}

BlockManagerConfig any_config() {
  BlockManagerConfig config;
  config.num_blocks = *any_of(1, 15);
  config.block_size = *any_of(1, 3);
  config.enable_prefix_cache = *any_of(0, 4) != 0;
  return config;
}

void run(const BlockManagerConfig& config) {
  Model model(config);
  const auto operation = rc::gen::build<Operation>(rc::gen::set(&Operation::kind, any_of(0, 19)),
                                                   rc::gen::set(&Operation::first, any_of(0, 999)),
                                                   rc::gen::set(&Operation::second, any_of(0, 999)));
  for (const Operation& op : *rc::gen::scale(2.0, rc::gen::container<std::vector<Operation>>(operation)))
    model.apply(op);
  model.close_all();
}

RC_GTEST_PROP(BlockManagerPropertyTest, AgreesWithTheModel, ()) { run(any_config()); }

RC_GTEST_PROP(BlockManagerPropertyTest, AgreesWithTheModelWhenMostHashesCollide, ()) {
  BlockManagerConfig config = any_config();
  config.hash = weak_hash;
  run(config);
}

}  // namespace
}  // namespace trireme
