#include "engine/tokenizer/vocabulary.h"

#include "kernels/check.h"

namespace trireme::tok {

bool Vocabulary::add(std::string token, int32_t id) {
  CHECK_GE(id, 0);
  CHECK_LE(id, kMaxTokenId);
  if (contains(id) || ids_.contains(token)) return false;
  if (static_cast<size_t>(id) >= index_.size()) index_.resize(static_cast<size_t>(id) + 1, -1);
  index_[id] = static_cast<int32_t>(tokens_.size());
  tokens_.push_back(std::move(token));
  ids_.emplace(tokens_.back(), id);
  return true;
}

}  // namespace trireme::tok
