#pragma once
// What tokenizer_config.json adds to tokenizer.json.

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/tokenizer/added_vocabulary.h"
#include "engine/tokenizer/json_node.h"

namespace trireme::tok {

/// The members that change ids or text; all others are left alone.
struct TokenizerConfig {
  std::vector<std::pair<int32_t, AddedToken>> added_tokens;  // "added_tokens_decoder"
  std::vector<std::string> special_tokens;  // "bos_token" and so on; those of the vocabulary count
  std::string bos_token;                    // empty: none
  std::string eos_token;
  std::optional<bool> add_bos_token;
  std::optional<bool> add_eos_token;

  /// Errors go to the node's status.
  static TokenizerConfig parse(const JsonNode& root);
};

}  // namespace trireme::tok
