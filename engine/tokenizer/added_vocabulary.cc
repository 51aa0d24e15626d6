#include "engine/tokenizer/added_vocabulary.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/tokenizer/unicode.h"

namespace trireme::tok {

void TokenTrie::add(std::string_view text, int32_t id) {
  if (text.empty()) return;
  begins_[static_cast<uint8_t>(text[0])] = true;
  int32_t at = 0;
  for (const char c : text) {
    const auto [child, is_new] = nodes_[at].children.try_emplace(c, static_cast<int32_t>(nodes_.size()));
    at = child->second;
    if (is_new) nodes_.emplace_back();
  }
  nodes_[at].id = id;
}

std::pair<int32_t, size_t> TokenTrie::longest(std::string_view text, size_t at) const {
  std::pair<int32_t, size_t> best(-1, 0);
  if (!begins_[static_cast<uint8_t>(text[at])]) return best;
  int32_t node = 0;
  for (size_t i = at; i < text.size(); ++i) {
    const auto child = nodes_[node].children.find(text[i]);
    if (child == nodes_[node].children.end()) break;
    node = child->second;
    if (nodes_[node].id >= 0) best = {nodes_[node].id, i + 1 - at};
  }
  return best;
}

AddedToken AddedVocabulary::parse_token(const JsonNode& node) {
  AddedToken token;
  token.content = node.member("content").as_string();
  token.single_word = node.bool_or("single_word", false);
  token.lstrip = node.bool_or("lstrip", false);
  token.rstrip = node.bool_or("rstrip", false);
  token.special = node.bool_or("special", false);
  token.normalized = node.bool_or("normalized", !token.special);
  return token;
}

void AddedVocabulary::add(const JsonNode& at, AddedToken token, int32_t id, const Vocabulary& model) {
  if (!at.ok()) return;
  if (token.content.empty()) return;  // as in the library, which never finds it
  const int32_t known = find_id(token.content) >= 0 ? find_id(token.content) : model.find(token.content);
  if (known >= 0 && known != id) {
    return at.fail(
        absl::StrCat("\"", token.content, "\" is given id ", id, ", but it already has id ", known));
  }
  const auto holder = tokens_.find(id);
  const bool taken = known < 0 && (holder != tokens_.end() || model.contains(id));
  if (taken) {
    const std::string& other = holder != tokens_.end() ? holder->second.content : model.token(id);
    return at.fail(absl::StrCat("id ", id, " of \"", token.content, "\" is already that of \"", other, "\""));
  }
  ids_[token.content] = id;
  tokens_[id] = std::move(token);
}

absl::Status AddedVocabulary::finish(const Normalizer& normalizer) {
  by_id_.assign(static_cast<size_t>(size()), nullptr);
  for (auto& [id, token] : tokens_) {
    by_id_[id] = &token;
    token.normalized_content = token.content;
    if (token.normalized) {
      const WorkLimit limit = WorkLimit::for_text(token.content.size());
      if (absl::Status status = normalizer.apply(token.normalized_content, limit); !status.ok())
        return status;
    }
    (token.normalized ? normalized_ : raw_).add(token.normalized_content, id);
  }
  return absl::OkStatus();
}

// The longest token at the leftmost place; then on behind it, whether or not its conditions held.
void AddedVocabulary::find(std::string_view text, bool normalized, std::vector<Part>& parts) const {
  parts.clear();
  const TokenTrie& trie = normalized ? normalized_ : raw_;
  size_t done = 0;
  for (size_t at = 0; !trie.empty() && at < text.size();) {
    const auto [id, length] = trie.longest(text, at);
    if (id < 0) {
      ++at;
      continue;
    }
    size_t begin = at;
    size_t end = at + length;
    at = end;
    const AddedToken& token = *by_id_[id];
    if (token.single_word) {
      const bool word_before = begin > 0 && is_word(decode_utf8_before(text, begin).value);
      const bool word_after = end < text.size() && is_word(decode_utf8(text, end).value);
      if (word_before || word_after) continue;
    }
    if (token.lstrip) {
      while (begin > done && is_whitespace(decode_utf8_before(text, begin).value)) {
        begin -= decode_utf8_before(text, begin).length;
      }
      begin = std::max(begin, done);  // a token before this one may have taken the space
    }
    while (token.rstrip && end < text.size() && is_whitespace(decode_utf8(text, end).value)) {
      end += decode_utf8(text, end).length;
    }
    if (begin > done) parts.push_back({-1, done, begin});
    if (begin < end) parts.push_back({id, begin, end});
    done = end;
  }
  if (done < text.size()) parts.push_back({-1, done, text.size()});
}

const AddedToken* AddedVocabulary::token(int32_t id) const {
  return id >= 0 && static_cast<size_t>(id) < by_id_.size() ? by_id_[id] : nullptr;
}

int32_t AddedVocabulary::find_id(std::string_view content) const {
  const auto found = ids_.find(content);
  return found == ids_.end() ? -1 : found->second;
}

}  // namespace trireme::tok
