#pragma once
// What happens to the text before it is cut: the object "normalizer" of tokenizer.json.

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "engine/tokenizer/json_node.h"
#include "engine/tokenizer/regex.h"

namespace trireme::tok {

/// Immutable; any number of threads may use it.
class Normalizer {
 public:
  virtual ~Normalizer() = default;
  /// Changes `text`, valid UTF-8, in place. `limit` bounds patterns; RESOURCE_EXHAUSTED.
  virtual absl::Status apply(std::string& text, const WorkLimit& limit) const = 0;
};

/// Never null; null in the file gives one that does nothing. An unknown kind is an error of the node's
/// status.
std::unique_ptr<Normalizer> parse_normalizer(const JsonNode& node);

/// The object "pattern" of Replace and Split: {"String": text} or {"Regex": pattern}.
Pattern parse_pattern(const JsonNode& node);

}  // namespace trireme::tok
