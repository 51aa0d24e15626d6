#pragma once
// Which special tokens surround an encoded text: the object "post_processor" of tokenizer.json.

#include <cstdint>
#include <vector>

#include "engine/tokenizer/json_node.h"

namespace trireme::tok {

/// A list of templates that apply one after another. Immutable after parse.
class PostProcessor {
 public:
  /// Null gives one that adds nothing. An unknown kind is an error of the node's status.
  static PostProcessor parse(const JsonNode& node);
  /// `begin`, the text, `end`.
  static PostProcessor around(std::vector<int32_t> begin, std::vector<int32_t> end);

  /// All ids that it may add.
  std::vector<int32_t> ids() const;
  void apply(std::vector<int32_t>& ids, bool add_special_tokens) const;

 private:
  static constexpr int32_t kText = -1;
  using Template = std::vector<int32_t>;  // ids, and kText where the text goes

  void parse_into(const JsonNode& node);
  static Template parse_template(const JsonNode& node);

  std::vector<Template> templates_;
};

}  // namespace trireme::tok
