#pragma once
// How text is cut into words that the model then encodes one by one: the object "pre_tokenizer" of
// tokenizer.json.

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "engine/tokenizer/json_node.h"
#include "engine/tokenizer/regex.h"

namespace trireme::tok {

/// A text in pieces, none of them empty. Together they need not cover all of `text`.
struct PreTokens {
  struct Piece {
    size_t begin;
    size_t end;
    bool at_start;  // begins where the text given to encode() begins
  };
  std::string text;  // valid UTF-8
  std::vector<Piece> pieces;

  std::string_view piece(const Piece& p) const {
    return std::string_view(text).substr(p.begin, p.end - p.begin);
  }
};

/// Immutable; any number of threads may use it.
class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  /// Cuts each piece further and may rewrite the text. RESOURCE_EXHAUSTED when a pattern exceeds a limit.
  virtual absl::Status apply(PreTokens& tokens, const WorkLimit& limit) const = 0;
};

/// Never null; null in the file gives one that does nothing. An unknown kind is an error of the node's
/// status.
std::unique_ptr<PreTokenizer> parse_pretokenizer(const JsonNode& node);

}  // namespace trireme::tok
