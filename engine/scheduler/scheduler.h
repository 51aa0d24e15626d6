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
  int32_t ageing_steps = 128;  // steps of waiting that make up for a priority worse by one
};

struct SchedulerStats {
  int32_t running = 0;
  int32_t waiting = 0;
  int64_t waiting_prompt_tokens = 0;
  int32_t free_slots = 0;  // sequences that could join; 0 while the first that waits finds no blocks
  int32_t blocks_total = 0;
  int32_t blocks_free = 0;         // allocatable now: never used, or cached and evictable
  int32_t blocks_cached = 0;       // of the free ones, how many hold a reusable prefix
  int32_t blocks_of_finished = 0;  // owned by no request that waits or runs, and yet not free: always 0
  int64_t preemptions = 0;
  int64_t prompt_tokens = 0;         // of accepted requests
  int64_t cached_prompt_tokens = 0;  // of those, how many were not computed
  int64_t output_tokens = 0;
  int64_t finished = 0;  // requests that ended, cancelled ones included
  int64_t steps = 0;
};

/// Continuous batching over a paged KV cache.
///
/// A step takes at most max_step_tokens query tokens. First every decoding sequence gets its one; prompts
/// share the rest, cut into chunks, so that a long prompt delays nobody's next token by more than a step. At
/// most min(max_num_seqs, max_step_tokens) sequences run at once: no decode is ever left out.
///
/// Fairness. Requests are ordered by (priority * ageing_steps + the step they arrived at), then by arrival.
/// Admission is strictly in this order, so a request is overtaken only by those of a smaller priority number
/// that arrive within ageing_steps * (difference of the priorities) steps after it: however many arrive, each
/// request's turn comes. Whatever comes first in the order of the running ones is never preempted and
/// computes at least one token in every step; so the first in line waits max_num_seqs * max_context_len steps
/// at the very most, and in the usual case until the next sequence ends.
///
/// Preemption. When no block is left for a decode, the last in the order gives up its blocks and waits again;
/// prompt and output are computed anew later, as far as the prefix cache has lost them. Its tokens are those
/// of an undisturbed run, since a random number depends on seed and output index alone.
///
/// Each accepted request ends exactly once: one TokenOutput with a finish reason.
///
/// Several plans may be scheduled before the first is finished, as long as plans run in the order of
/// schedule() and are finished in that order: tokens that the host has not seen yet are named kLastToken.
/// What a plan computes past a stop token is discarded.
class Scheduler {
 public:
  explicit Scheduler(const SchedulerConfig& config);
  ~Scheduler();

  /// Queues a request. INVALID_ARGUMENT / RESOURCE_EXHAUSTED when it could never run (its prompt and
  /// max_tokens exceed the context or the whole cache), ALREADY_EXISTS when the handle is in use; what, got
  /// and wanted are named.
  absl::Status add(Request request);
  /// Frees everything a request holds, at once and whatever its state; an output with FinishReason::cancelled
  /// follows from the next finish_step() or take_finished(). Unknown or finished handles change nothing.
  /// Returns whether one was found.
  bool cancel(RequestHandle handle);
  /// Some request is waiting or running.
  bool has_work() const;

  /// Writes the next step into `plan`; false when there is nothing to run until a step is finished or a
  /// request added. Every call that returned true is followed by one finish_step() with the same plan.
  bool schedule(StepPlan& plan);
  /// Takes what the oldest unfinished step sampled: one id and logprob per sampled sequence, in the plan's
  /// order (id -1: the logits held a NaN; that request alone ends with numerical_error). Appends to `outputs`
  /// those of cancelled requests, then one TokenOutput per token, and frees what finished. `logprobs` may be
  /// null, and `more` where the plan asks for no top or prompt logprobs.
  void finish_step(const StepPlan& plan, const int32_t* token_ids, const float* logprobs,
                   std::vector<TokenOutput>& outputs, const StepLogprobs* more = nullptr);
  /// Outputs of requests that were cancelled since the last finish_step().
  void take_finished(std::vector<TokenOutput>& outputs);

  SchedulerStats stats() const;
  /// Appends the handles of the requests that wait, the first in line first.
  void list_waiting(std::vector<RequestHandle>& handles) const;
  /// free + used = total, reference counts match the tables, no block of a finished request is left; INTERNAL
  /// saying which is wrong. Takes time in proportion to blocks and requests.
  absl::Status check_integrity() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace trireme
