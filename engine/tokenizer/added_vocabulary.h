#pragma once
// Tokens outside the model: found in the text before it is cut, and among them the special ones.

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "engine/tokenizer/json_node.h"
#include "engine/tokenizer/normalizer.h"
#include "engine/tokenizer/vocabulary.h"

namespace trireme::tok {

struct AddedToken {
  std::string content;
  std::string normalized_content;  // what is looked for, and what decodes, when `normalized`
  bool single_word = false;        // not inside a word
  bool lstrip = false;             // takes the white space before it
  bool rstrip = false;             // ... and after it
  bool normalized = false;         // looked for in the normalized text
  bool special = false;            // left out of decoded text
};

/// Finds the longest of several texts at a place. Immutable after the last add().
class TokenTrie {
 public:
  void add(std::string_view text, int32_t id);
  bool empty() const { return nodes_.size() == 1; }
  /// The id of the longest added text that begins at byte `at`, and its length; -1 when there is none.
  std::pair<int32_t, size_t> longest(std::string_view text, size_t at) const;

 private:
  struct Node {
    int32_t id = -1;
    absl::flat_hash_map<char, int32_t> children;
  };
  std::vector<Node> nodes_ = std::vector<Node>(1);
  bool begins_[256] = {};  // bytes that a text begins with
};

/// Immutable after finish().
class AddedVocabulary {
 public:
  /// A part of a text: an added token, or (id -1) text between them.
  struct Part {
    int32_t id;
    size_t begin;
    size_t end;
  };

  /// Reads one element of "added_tokens" (with its member "id") or of "added_tokens_decoder".
  static AddedToken parse_token(const JsonNode& node);
  /// Adds a token or gives the one with this content other flags. An error of the node's status when the
  /// model or an earlier token has the id for another text or the text under another id.
  void add(const JsonNode& at, AddedToken token, int32_t id, const Vocabulary& model);
  /// Normalizes what is to be looked for and builds the search structures.
  absl::Status finish(const Normalizer& normalizer);

  /// Cuts `text` at the added tokens: those looked for in the text as given, or those in the normalized text.
  void find(std::string_view text, bool normalized, std::vector<Part>& parts) const;

  const AddedToken* token(int32_t id) const;  // null when `id` is no added token
  int32_t find_id(std::string_view content) const;
  int32_t size() const { return tokens_.empty() ? 0 : tokens_.rbegin()->first + 1; }  // highest id + 1

 private:
  std::map<int32_t, AddedToken> tokens_;
  std::map<std::string, int32_t, std::less<>> ids_;
  std::vector<const AddedToken*> by_id_;
  TokenTrie raw_;
  TokenTrie normalized_;
};

}  // namespace trireme::tok
