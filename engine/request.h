#pragma once
// What a client asked for, as the engine sees it: token ids and numbers, no text, no RPC.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace trireme {

/// Everything is resolved here: defaults of generation_config.json are already in.
struct SamplingParams {
  float temperature = 0;  // 0: greedy
  int32_t top_k = 0;      // 0: off
  float top_p = 1;        // 1: off
  float min_p = 0;        // 0: off
  uint64_t seed = 0;
  uint32_t sample_index = 0;     // which of the samples of one prompt: their random numbers differ
  float repetition_penalty = 1;  // 1: off; over prompt and output
  float presence_penalty = 0, frequency_penalty = 0;       // 0: off; over the output alone
  std::vector<std::pair<int32_t, float>> logit_bias = {};  // ids inside the vocabulary, each once
};

/// What is wanted beside the tokens.
struct OutputParams {
  int32_t num_top_logprobs = 0;      // most likely ids of each output token, [0, 20]
  int32_t num_prompt_logprobs = -1;  // the same of each prompt token, its own logprob too; -1: nothing
};

struct StoppingParams {
  int32_t max_tokens = 16;
  int32_t min_tokens = 0;
  bool ignore_eos = false;
  std::vector<int32_t> stop_token_ids;  // end-of-sequence ids of the model included, unless ignore_eos
};

/// Names an engine-side request; unique for the life of an Engine.
using RequestHandle = uint64_t;

struct Request {
  RequestHandle handle = 0;
  std::vector<int32_t> prompt;  // at least one id, all inside the vocabulary
  /// Tokens that another engine has produced for this very request, fewer than max_tokens. The request goes
  /// on after them as if this engine had: they count as outputs everywhere, and are not given again.
  std::vector<int32_t> resumed_outputs;
  SamplingParams sampling;
  StoppingParams stopping;
  OutputParams output;
  int32_t priority = 0;     // lower first
  uint64_t cache_salt = 0;  // prefixes are shared only between requests of equal salt: one per tenant
  /// Samples of one prompt name the handle of the first of them; 0: a prompt of its own. They share the
  /// prompt's blocks with each other even where there is no prefix cache.
  RequestHandle prompt_group = 0;
};

enum class FinishReason : uint8_t { none, length, stop, cancelled, numerical_error };

/// Whether a request ends with its output number `num_outputs` (from 1), which is `token_id`.
inline FinishReason stop_reason(const StoppingParams& stopping, int32_t num_outputs, int32_t token_id) {
  const std::vector<int32_t>& stops = stopping.stop_token_ids;
  if (num_outputs >= stopping.min_tokens && std::find(stops.begin(), stops.end(), token_id) != stops.end())
    return FinishReason::stop;
  return num_outputs >= stopping.max_tokens ? FinishReason::length : FinishReason::none;
}

struct TokenLogprob {
  int32_t token_id = 0;
  float logprob = 0;  // natural log of the softmax of the unmodified logits
};

/// Of all prompt tokens but the first, which nothing precedes.
struct PromptLogprobs {
  int32_t num_top = 0;
  std::vector<float> logprobs;    // [num_prompt_tokens - 1]
  std::vector<TokenLogprob> top;  // [num_prompt_tokens - 1][num_top], most likely first
};

/// Apart from the token they belong to: most tokens have none, and many may wait for a slow reader.
struct OutputLogprobs {
  std::vector<TokenLogprob> top;                 // most likely first
  std::shared_ptr<const PromptLogprobs> prompt;  // on the first token, where asked for
};

/// One token of one request.
struct TokenOutput {
  RequestHandle handle = 0;
  uint32_t sample_index = 0;
  int32_t token_id = 0;
  float logprob = 0;
  FinishReason finish = FinishReason::none;  // set on the last one
  bool has_token = true;                     // false when a request ends without a further token (cancelled)
  int32_t num_cached_tokens = 0;             // prompt tokens that were not computed; on the first output
  uint64_t first_step = 0;                   // the first step it was in, 0 if none; on the first output
  std::shared_ptr<const OutputLogprobs> more;  // null where nothing more was asked for

  const std::vector<TokenLogprob>& top_logprobs() const {
    static const std::vector<TokenLogprob> none;
    return more == nullptr ? none : more->top;
  }
  std::shared_ptr<const PromptLogprobs> prompt_logprobs() const {
    return more == nullptr ? nullptr : more->prompt;
  }
};

}  // namespace trireme
