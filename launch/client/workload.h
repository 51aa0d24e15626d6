#pragma once
// What a load consists of: prompts, and how many tokens to ask for.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace trireme::client {

/// One request. Either ids or text.
struct WorkItem {
  std::vector<int32_t> prompt_ids;
  std::string text;
  int32_t output_tokens = 0;  // forced: end-of-sequence is ignored
  uint64_t seed = 0;          // of its sampling
};

/// --dataset, parsed: random:IN,OUT, prefix:SHARED,UNIQUE,OUT[,GROUPS] or sharegpt:FILE.
struct DatasetSpec {
  enum class Kind { random, prefix, sharegpt };
  Kind kind = Kind::random;
  int64_t shared_tokens = 0;  // equal within a group
  int64_t unique_tokens = 0;
  int64_t output_tokens = 0;
  int64_t num_groups = 1;
  std::string file;
};
/// INVALID_ARGUMENT saying what was wanted.
absl::StatusOr<DatasetSpec> parse_dataset(const std::string& text);

/// What prompts must fit.
struct PromptLimits {
  int32_t vocab_size = 0;
  int32_t max_context_len = 0;
  std::vector<int32_t> avoided_ids;  // end-of-sequence; what a server does not tell of is not avoided
};

/// `count` requests of a random or prefix dataset: ids drawn evenly from the vocabulary, the same for the
/// same seed. INVALID_ARGUMENT where a request would not fit the context, or all would not fit in memory.
absl::StatusOr<std::vector<WorkItem>> make_workload(const DatasetSpec& spec, const PromptLimits& limits,
                                                    size_t count, uint64_t seed);

/// Number of tokens of a text, as the server counts them.
using CountTokens = std::function<absl::StatusOr<int64_t>(const std::string&)>;

/// `count` requests from a file of conversations: a seeded permutation of its entries, from the start again
/// when there are too few. The first turn is the prompt; the second one's length is asked for. Entries that
/// do not fit the context are left out. Errors of `count_tokens` are passed on.
absl::StatusOr<std::vector<WorkItem>> make_sharegpt_workload(const DatasetSpec& spec,
                                                             const PromptLimits& limits, size_t count,
                                                             uint64_t seed, const CountTokens& count_tokens);

}  // namespace trireme::client
