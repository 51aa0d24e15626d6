#pragma once
// One step as flat integers: what the leader broadcasts and every rank runs.

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kernels/sampling_row.h"

namespace trireme {

/// Token id that means "the last token sampled in this sequence's slot", which every rank keeps.
inline constexpr int32_t kLastToken = -1;

/// A runner stores K and V of every token of the step, layer by layer, before any of them attends in that
/// layer: a sequence may attend over blocks that another one of the same plan fills.
struct StepPlan {
  enum class Kind : int32_t { kRun = 1, kIdle = 2, kStop = 3, kReport = 4, kTrace = 5 };
  Kind kind = Kind::kRun;
  uint64_t step = 0;  // counts from 1; equal on all ranks
  /// The leader had nothing to run before this plan: who waited for it was idle, not held up.
  bool after_idle = false;

  // Per sequence, in the order of the batch. A sequence with several query tokens is a prefill chunk.
  std::vector<int32_t> slots;         // engine slot of the sequence, [0, max_num_seqs); -1: padding
  std::vector<int32_t> query_lens;    // new tokens this step, >= 1
  std::vector<int32_t> context_lens;  // tokens attended over, this step's included
  std::vector<int32_t> num_blocks;    // length of its block table
  std::vector<int32_t> block_tables;  // all tables one after the other
  std::vector<int32_t> token_ids;     // all query tokens one after the other; kLastToken allowed
  std::vector<int32_t>
      sample;  // 1: the last query token's logits are sampled; 0: chunk of an unfinished prompt
  std::vector<SamplingRow> sampling;  // one per sequence with sample == 1, in order

  // What some rows of `sampling` refer to by count, those of one row after those of the rows before it.
  std::vector<int32_t> bias_ids;    // sum of num_biases
  std::vector<float> biases;        // as many
  std::vector<int32_t> banned_ids;  // sum of num_banned
  // Sum of num_history_prompt + num_history_output: what a row with penalties has seen. It comes with the
  // first sampled row after a sequence has entered its slot; from then on rank 0 counts what it samples.
  std::vector<int32_t> history_ids;

  // Prompt log probabilities: query tokens whose logits are wanted, wherever they are in the prompt.
  std::vector<int32_t> logprob_tokens;   // indices into token_ids, rising
  std::vector<int32_t> logprob_targets;  // the token that follows each
  std::vector<int32_t> logprob_tops;     // how many most likely ids each wants, [0, kMaxTopLogprobs]

  int32_t num_seqs() const { return static_cast<int32_t>(slots.size()); }
  int32_t num_tokens() const { return static_cast<int32_t>(token_ids.size()); }
  int32_t num_sampled() const { return static_cast<int32_t>(sampling.size()); }
  int32_t num_prompt_logprobs() const { return static_cast<int32_t>(logprob_tokens.size()); }
};

/// Log probabilities beyond those of the sampled tokens: what finish_step() takes of a step that was asked
/// for them. Row-major with kMaxTopLogprobs columns, of which a row fills as many as it asked for.
struct StepLogprobs {
  std::vector<int32_t> top_ids;        // [num_sampled]
  std::vector<float> top_logprobs;     // [num_sampled]
  std::vector<float> prompt_logprobs;  // one per StepPlan::logprob_tokens
  std::vector<int32_t> prompt_top_ids;
  std::vector<float> prompt_top_logprobs;
};

/// Limits a received plan is checked against before any number of it is used.
struct StepPlanLimits {
  int32_t max_num_seqs = 0;
  int32_t max_num_tokens = 0;
  int32_t max_context_len = 0;
  int32_t block_size = 0;
  int32_t num_blocks = 0;
  int32_t vocab_size = 0;
};

/// INVALID_ARGUMENT naming the field unless every number is finite and in its range: temperature >= 0,
/// top_k >= 0, top_p in (0, 1], min_p in [0, 1], repetition_penalty > 0, counts in [0, kMax...].
absl::Status check_sampling_row(const SamplingRow& row);

/// Little-endian int32 words: magic, version, kind, step, counts, then the arrays. `out` is reused, not
/// reallocated when large enough.
void pack(const StepPlan& plan, std::vector<int32_t>& out);
/// INVALID_ARGUMENT naming the field, its index, what it was and what was wanted; `plan` is then without
/// meaning. Never reads past `words`, and takes no memory beyond what the limits allow. A plan that passes
/// is safe to run: counts and sums agree, slots are used once, tables cover their contexts, and every id is
/// in range. kLastToken may only be the first query token of a sequence that has a slot. Plans of another
/// kind than kRun are empty.
absl::Status unpack(const int32_t* words, size_t num_words, const StepPlanLimits& limits, StepPlan& plan);

}  // namespace trireme
