#pragma once

#include <cstdint>

namespace trireme {

/// How one row of logits becomes a token. Plain data: it travels in a step plan.
/// Neutral values switch a step off: top_k 0, top_p 1, min_p 0, penalties 1, 0 and 0, and counts 0.
/// temperature 0 is greedy (the lowest id among equals).
///
/// The order, that of Hugging Face transformers (GenerationMixin._get_logits_processor), with the OpenAI
/// API's two penalties beside the repetition penalty:
///   1. each biased id's logit x becomes x + bias;
///   2. of ids in the prompt or the output so far, x becomes x / repetition_penalty where x > 0, else
///      x * repetition_penalty (arXiv:1909.05858);
///   3. of ids that are c > 0 times in the output so far, x becomes
///      x - c * frequency_penalty - presence_penalty
///      (https://platform.openai.com/docs/api-reference/completions/create);
///      a finite logit stays finite through 1 to 3: what would overflow becomes the largest finite number;
///   4. banned ids get -infinity (end-of-sequence and stop ids before min_tokens);
///   5. temperature, then top-k, top-p and min-p, all on the same softmax.
/// Log probabilities are those of the logits before all of this.
struct SamplingRow {
  float temperature = 0;
  int32_t top_k = 0;
  float top_p = 1;
  float min_p = 0;
  uint64_t seed = 0;          // key of the counter-based generator
  uint32_t sample_index = 0;  // counter word 0: which of the request's n samples
  uint32_t output_index = 0;  // counter word 1: how many tokens came before this one

  float repetition_penalty = 1;
  float presence_penalty = 0;
  float frequency_penalty = 0;
  // How many entries of the flat arrays are this row's; they follow those of the rows before it.
  int32_t num_biases = 0;
  int32_t num_banned = 0;
  int32_t num_history_prompt = 0;  // of the history: ids of the prompt, then
  int32_t num_history_output = 0;  // ids of the output so far
  int32_t num_top_logprobs = 0;    // how many most likely ids are wanted with their log probabilities

  constexpr bool has_penalties() const {
    return repetition_penalty != 1 || presence_penalty != 0 || frequency_penalty != 0;
  }
  constexpr bool edits_logits() const { return has_penalties() || num_biases > 0 || num_banned > 0; }
};

inline constexpr int32_t kMaxBiases = 64;       // of a row
inline constexpr int32_t kMaxBanned = 256;      // of a row
inline constexpr int32_t kMaxTopLogprobs = 20;  // of a row

}  // namespace trireme
