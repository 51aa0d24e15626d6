#pragma once
// Token texts and their ids, both ways.

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace trireme::tok {

inline constexpr int32_t kMaxTokenId = (1 << 22) - 1;  // ids index arrays; the largest vocabularies have 2^19

class Vocabulary {
 public:
  Vocabulary() = default;
  Vocabulary(const Vocabulary&) = delete;  // the views below point into tokens_
  Vocabulary& operator=(const Vocabulary&) = delete;
  Vocabulary(Vocabulary&&) = default;
  Vocabulary& operator=(Vocabulary&&) = default;

  /// False when the text or the id is taken. 0 <= id <= kMaxTokenId.
  bool add(std::string token, int32_t id);
  /// -1 when there is no such token.
  int32_t find(std::string_view token) const {
    const auto found = ids_.find(token);
    return found == ids_.end() ? -1 : found->second;
  }
  bool contains(int32_t id) const {
    return id >= 0 && static_cast<size_t>(id) < index_.size() && index_[id] >= 0;
  }
  /// The token of an id that the vocabulary contains.
  const std::string& token(int32_t id) const { return tokens_[index_[id]]; }
  /// Highest id + 1.
  int32_t size() const { return static_cast<int32_t>(index_.size()); }

 private:
  std::deque<std::string> tokens_;  // never moves its elements
  absl::flat_hash_map<std::string_view, int32_t> ids_;
  std::vector<int32_t> index_;  // id to place in tokens_, -1 for none
};

}  // namespace trireme::tok
