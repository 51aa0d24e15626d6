#pragma once
// Files of conversations in ShareGPT's form: [{"conversations": [{"from": "human", "value": "..."}, ...]},
// ...].

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace trireme::client {

struct Conversation {
  std::string prompt;  // the first turn
  std::string answer;  // the second
};

/// Reads a file as a stream, without a document of it in memory: such files have hundreds of megabytes.
/// Entries of fewer than two turns, or with an empty one among the first two, are left out, as there are
/// many. NOT_FOUND, or INVALID_ARGUMENT naming file, entry and field: not JSON, deeper than 64 levels, a list
/// of something else, a text that is not one, no conversation at all.
absl::StatusOr<std::vector<Conversation>> read_sharegpt(const std::string& path);

}  // namespace trireme::client
