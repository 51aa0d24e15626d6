#pragma once
// A scheduler and a fake model, run against what each request would give alone.

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "absl/status/status.h"
#include "engine/scheduler/scheduler.h"
#include "tests/engine/scheduler/fake_model.h"

namespace trireme {

/// Every call checks all that must hold, and says what did not.
class Simulation {
 public:
  struct Record {
    Request request;
    std::vector<int32_t> tokens;  // resumed ones first
    FinishReason finish = FinishReason::none;
    int32_t num_cached_tokens = 0;
    std::shared_ptr<const PromptLogprobs> prompt_logprobs;
    bool cancelled = false;
  };

  /// `max_plans`: how many plans are scheduled before the first is finished.
  Simulation(const SchedulerConfig& config, const FakeModelConfig& model, int max_plans = 1);

  /// What Scheduler::add() said; accepted requests are watched from here on. The handle is set here.
  absl::Status add(Request request);
  absl::Status cancel(RequestHandle handle);
  /// One schedule() and, when the pipeline is full or nothing could be scheduled, one finish_step().
  absl::Status step();
  /// Steps until nothing is left, then checks that all blocks are free and all requests ended.
  absl::Status drain();

  Scheduler& scheduler() { return scheduler_; }
  const Record& record(RequestHandle handle) const { return records_.at(handle); }
  const std::map<RequestHandle, Record>& records() const { return records_; }
  RequestHandle last_handle() const { return last_handle_; }
  const StepPlan& last_plan() const { return last_plan_; }

 private:
  struct InFlight {
    StepPlan plan;
    std::vector<int32_t> token_ids;
    StepLogprobs logprobs;
    bool preempted = false;
  };

  absl::Status schedule(bool* scheduled);
  absl::Status finish();
  absl::Status take(const std::vector<TokenOutput>& outputs);
  absl::Status check_end(const Record& record) const;
  absl::Status check_logprobs(const Record& record, const ReferenceRun& wanted) const;

  SchedulerConfig config_;
  FakeModelConfig model_config_;
  int max_plans_;
  Scheduler scheduler_;
  FakeModel model_;
  std::deque<InFlight> in_flight_;
  std::map<RequestHandle, Record> records_;
  std::set<RequestHandle> decoding_;  // got a token in the step before
  RequestHandle last_handle_ = 0;
  StepPlan last_plan_;
};

}  // namespace trireme
