#pragma once
// Log probabilities of the engine as those of the wire.

#include <vector>

#include "engine/request.h"
#include "trireme/v1/inference.pb.h"

namespace trireme::worker {

/// Of one token: itself, and the most likely ones in its place.
void fill_logprobs(TokenLogprob chosen, const TokenLogprob* top, size_t num_top, v1::Logprobs& message);

/// One entry per token of prompt.token_ids; the first, which nothing precedes, is empty.
void fill_prompt_logprobs(const PromptLogprobs& logprobs, v1::PromptInfo& prompt);

}  // namespace trireme::worker
