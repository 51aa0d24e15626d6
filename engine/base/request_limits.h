#pragma once
// The one validator of requests. The coordinator calls it, and the worker calls it again.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace trireme {

/// What another replica has produced for one sample.
struct ResumeFields {
  int32_t index = 0;
  std::vector<int32_t> token_ids;
  bool finished = false;
};

/// A request as it arrived, before defaults: what both services fill from their message. A worker that has
/// tokenized `text` sets `token_ids` too and validates again: then lengths are exact, and named as the
/// text's.
struct RequestFields {
  std::string request_id;
  bool has_text = false;
  std::string text;
  std::vector<int32_t> token_ids;
  std::optional<float> temperature, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty;
  std::optional<int32_t> top_k, max_tokens, min_tokens, n, logprobs, prompt_logprobs;
  std::vector<std::string> stop;
  std::vector<int32_t> stop_token_ids;
  std::vector<std::pair<int32_t, float>> logit_bias;
  std::vector<ResumeFields> resume;
};

/// Limits of requests; vocab_size and max_context_len are 0 where they are not known yet (a coordinator
/// without replicas).
struct RequestLimits {
  int64_t max_prompt_bytes = 1 << 20;  // of text; also the most token ids a prompt may have
  int32_t max_context_len = 0;
  int32_t vocab_size = 0;
  int64_t max_n = 8;
  int64_t max_logprobs = 20;
  // prompt_logprobs + 1 for each token: what fits into one message of 4 MiB beside the ids.
  int64_t max_prompt_logprob_entries = 200'000;
  int64_t max_stop_strings = 4;
  int64_t max_stop_bytes = 64;
  int64_t max_stop_token_ids = 64;
  int64_t max_logit_bias = 64;
};

/// A limit that users may set: the flag of the programs that validate, and how far it goes. What is beyond
/// would not fit into a message of 4 MiB or a row of a step plan.
struct RequestLimitOption {
  const char* flag;
  int64_t RequestLimits::*limit;
  int64_t least, most;
  const char* text;
};
std::span<const RequestLimitOption> request_limit_options();

/// What is wrong with a request: the field's path in the proto, and a sentence with got and wanted.
struct FieldViolation {
  std::string field;
  std::string description;
};

/// The first violation, or nullopt. No text of the request appears in a description. Negative, NaN and
/// infinite numbers are refused wherever they make no sense.
std::optional<FieldViolation> validate(const RequestFields& request, const RequestLimits& limits);

}  // namespace trireme
