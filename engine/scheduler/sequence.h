#pragma once
// The scheduler's own record of a request. Not for others: see scheduler.h.

#include <compare>
#include <cstdint>
#include <memory>
#include <vector>

#include "engine/request.h"
#include "kernels/sampling_row.h"

namespace trireme {

/// Place in every queue: smaller goes first, larger is preempted first.
struct SequenceOrder {
  int64_t due = 0;       // priority * ageing_steps + step of arrival
  uint64_t arrival = 0;  // counts requests; breaks ties
  auto operator<=>(const SequenceOrder&) const = default;
};

inline SamplingRow sampling_row(const SamplingParams& params, int32_t output_index) {
  SamplingRow row;
  row.temperature = params.temperature;
  row.top_k = params.top_k;
  row.top_p = params.top_p;
  row.min_p = params.min_p;
  row.seed = params.seed;
  row.sample_index = params.sample_index;
  row.output_index = static_cast<uint32_t>(output_index);
  row.repetition_penalty = params.repetition_penalty;
  row.presence_penalty = params.presence_penalty;
  row.frequency_penalty = params.frequency_penalty;
  row.num_biases = static_cast<int32_t>(params.logit_bias.size());
  return row;
}

/// Waiting: no blocks, no slot. Running: blocks for at least num_computed tokens, and a slot.
struct Sequence {
  RequestHandle handle = 0;
  SequenceOrder order;
  SamplingParams sampling;
  StoppingParams stopping;  // each stop id once
  OutputParams output;
  uint64_t cache_salt = 0;
  bool shares_blocks = true;  // with others of its salt

  std::vector<int32_t> tokens;  // prompt, then the output the host knows
  int32_t num_prompt_tokens = 0;
  int32_t num_pending = 0;    // sampled by a plan that is not finished: in the slot, not known to the host
  int32_t num_computed = 0;   // tokens whose K and V the plans so far have written
  int32_t num_published = 0;  // full blocks offered to the prefix cache
  int32_t num_cached_tokens = -1;  // prompt tokens found at the first admission; -1: not admitted yet
  uint64_t first_step = 0;         // that it was in; 0: none yet
  bool reported = false;           // an output was given

  int32_t num_logprobs_planned = 0;  // prompt positions whose logits some plan has asked for, from the first
  std::shared_ptr<PromptLogprobs> prompt_logprobs;  // what plans have given of them; null: not wanted

  int32_t slot = -1;
  bool slot_has_token = false;  // the slot keeps the sequence's last token: decodes may say kLastToken
  std::vector<int32_t> blocks;  // block table

  bool running() const { return slot >= 0; }
  int32_t num_known() const { return static_cast<int32_t>(tokens.size()); }
  int32_t length() const { return num_known() + num_pending; }
  int32_t num_outputs() const { return length() - num_prompt_tokens; }
  /// One token is left to compute, which the slot keeps, and its successor is wanted.
  bool can_decode() const { return slot_has_token && num_outputs() < stopping.max_tokens; }
  bool in_prefill() const { return running() && !slot_has_token; }
  /// Prompt positions whose logits are wanted: all but the last, whose successor is the first output.
  int32_t num_wanted_logprobs() const { return prompt_logprobs == nullptr ? 0 : num_prompt_tokens - 1; }
};

}  // namespace trireme
