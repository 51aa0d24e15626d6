#pragma once
// What a row of a plan says of sampling and log probabilities. Not for others: see scheduler.h.

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "engine/request.h"
#include "engine/scheduler/sequence.h"
#include "engine/scheduler/step_plan.h"

namespace trireme {

/// INVALID_ARGUMENT naming what a plan could not carry: ids outside the vocabulary, numbers out of range, no
/// id left to draw before min_tokens.
absl::Status check_sampling(const Request& request, int32_t vocab_size);

/// The plan's newest sequence is sampled: appends its SamplingRow, biases, bans and, when `sequence` is new
/// in its slot, what penalties count.
void append_sampling(const Sequence& sequence, StepPlan& plan);

/// Asks for the logits of those prompt positions in [begin, end), the plan's newest query tokens, that no
/// plan has asked for yet. Returns how many.
int32_t append_prompt_logprobs(Sequence& sequence, int32_t begin, int32_t end, StepPlan& plan);

/// Appends entries [first, first + count) of a step to the sequence's. False when one is not a number.
bool take_prompt_logprobs(const StepLogprobs& step, int32_t first, int32_t count, PromptLogprobs& logprobs);

/// The `num_top` most likely tokens of a row.
std::vector<TokenLogprob> top_of(const int32_t* ids, const float* logprobs, int32_t num_top);

}  // namespace trireme
