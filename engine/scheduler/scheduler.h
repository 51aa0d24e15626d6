#pragma once
// Decides what the next step computes. Host integers only: no tensor, no clock, no lock, no RPC. One thread.

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "engine/request.h"
#include "engine/scheduler/step_plan.h"

namespace trireme {

struct SchedulerConfig {
  int32_t max_num_seqs = 64;       // sequences that run at once
  int32_t max_step_tokens = 512;   // query tokens of one step, prefill and decode together
  int32_t max_context_len = 2048;  // prompt and output of one request
  int32_t num_blocks = 0;          // of the KV cache
  int32_t block_size = 16;
  int32_t vocab_size = 0;
  bool enable_prefix_cache = true;
};

struct SchedulerStats {
  int32_t running = 0;
  int32_t waiting = 0;
  int64_t waiting_prompt_tokens = 0;
  int32_t blocks_total = 0;
  int32_t blocks_free = 0;    // allocatable now: never used, or cached and evictable
  int32_t blocks_cached = 0;  // of the free ones, how many hold a reusable prefix
  int64_t preemptions = 0;
  int64_t prompt_tokens = 0;         // of accepted requests
  int64_t cached_prompt_tokens = 0;  // of those, how many were not computed
  int64_t output_tokens = 0;
  int64_t finished = 0;
  int64_t steps = 0;
};

class Scheduler {
 public:
  explicit Scheduler(const SchedulerConfig& config);
  ~Scheduler();

  /// Queues a request. INVALID_ARGUMENT / RESOURCE_EXHAUSTED when it could never run (its prompt and
  /// max_tokens exceed the context or the whole cache); what, got and wanted are named.
  absl::Status add(Request request);
  /// Frees everything a request holds, whatever its state; an output with FinishReason::cancelled follows
  /// from the next finish_step() (or take_finished()). Unknown or finished handles change nothing. Returns
  /// whether one was found.
  bool cancel(RequestHandle handle);
  bool has_work() const;

  /// Writes the next step into `plan`; false when there is nothing to run. Every call that returned true is
  /// followed by one finish_step() before the next call.
  bool schedule(StepPlan& plan);
  /// Takes what the step sampled: one id and logprob per sampled sequence, in the plan's order (id -1: the
  /// logits held a NaN; that request alone ends with numerical_error). Appends one TokenOutput per token to
  /// `outputs`, and frees what finished.
  void finish_step(const StepPlan& plan, const int32_t* token_ids, const float* logprobs,
                   std::vector<TokenOutput>& outputs);
  /// Outputs of requests that were cancelled outside a step.
  void take_finished(std::vector<TokenOutput>& outputs);

  SchedulerStats stats() const;
  /// free + used = total, reference counts match the tables, no block of a finished request is left; INTERNAL
  /// saying which is wrong.
  absl::Status check_integrity() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace trireme
