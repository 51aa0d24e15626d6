#pragma once
// How many tokens per second come out when there is always another request: steps one after the other in
// virtual time, as a scheduler with continuous batching and chunked prompts makes them.

#include "engine/plan/step_cost.h"

namespace trireme {

/// Requests that are all alike and all there from the beginning.
struct SaturatingLoad {
  int prompt_tokens = 1, output_tokens = 1;
  int num_requests = 1;
  int max_running = 1;         // sequences at once: what the KV cache holds, or a limit
  int max_step_tokens = 8192;  // prompt tokens and decodes of one step
};

struct SaturatedRate {
  double output_tokens_per_s = 0;
  double seconds = 0;
  int64_t steps = 0;
  StepCost spent;  // seconds by part, of all steps
};

/// A running sequence decodes one token in each step; what is left of the step's tokens computes prompts, one
/// after the other. The step that ends a prompt gives its first token. Sizes are at least 1 (checked).
SaturatedRate saturate(const StepModel& model, const SaturatingLoad& load);

}  // namespace trireme
