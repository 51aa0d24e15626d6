#pragma once
// Inside of Scheduler, shared by scheduler.cc (requests in, tokens back) and schedule_step.cc (plans out).

#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

#include "engine/scheduler/block_manager.h"
#include "engine/scheduler/plan_sampling.h"
#include "engine/scheduler/scheduler.h"
#include "engine/scheduler/sequence.h"

namespace trireme {

struct Scheduler::Impl {
  /// What finish() must know of a plan. Handles, not pointers: a sequence may end while its plan runs.
  struct PlannedStep {
    uint64_t step = 0;
    std::vector<RequestHandle> handles;  // every row
    std::vector<int32_t> sample;
    std::vector<int32_t> num_prompt_logprobs;  // how many entries of the step's are the row's
  };

  explicit Impl(const SchedulerConfig& config);

  // ---- scheduler.cc ----
  absl::Status check_ids(const char* what, const std::vector<int32_t>& ids) const;
  absl::Status check_request(const Request& request) const;
  void add(Request request);
  Sequence* find(RequestHandle handle);
  void finish(const StepPlan& plan, const int32_t* token_ids, const float* logprobs, const StepLogprobs* more,
              std::vector<TokenOutput>& outputs);
  TokenOutput accept(Sequence& sequence, int32_t token_id, float logprob);
  TokenOutput end_without_number(Sequence& sequence);
  TokenOutput output_of(Sequence& sequence);
  void end(Sequence& sequence);
  absl::Status check_integrity() const;

  // ---- schedule_step.cc ----
  bool schedule(StepPlan& plan);
  void schedule_decodes(StepPlan& plan);
  void schedule_prefills(StepPlan& plan);
  void admit(StepPlan& plan);
  bool make_room(size_t index);
  void preempt(Sequence& sequence);
  void append_row(StepPlan& plan, Sequence& sequence, int32_t query_len);
  void publish(Sequence& sequence, bool replace);
  void start_running(Sequence& sequence);
  void stop_running(Sequence& sequence);

  SchedulerConfig config;
  BlockManager blocks;
  std::unordered_map<RequestHandle, std::unique_ptr<Sequence>> sequences;
  std::map<SequenceOrder, Sequence*> waiting;
  std::vector<Sequence*> running;    // sorted by order
  std::vector<PlannedStep> planned;  // scheduled, not finished; oldest first
  std::vector<PlannedStep> spare;    // their memory, to be used again
  std::vector<TokenOutput> ended;    // cancelled, not reported yet
  uint64_t num_arrivals = 0;
  int32_t budget = 0;         // query tokens the plan in the making may still take
  bool lacks_blocks = false;  // for the first that waits, when a plan last looked
  SchedulerStats stats;
};

}  // namespace trireme
