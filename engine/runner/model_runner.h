#pragma once
// Runs step plans: uploads a plan's integers, calls the model, samples. The same on every rank.

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/layers/forward_context.h"
#include "engine/models/causal_lm.h"
#include "engine/plan/shard_plan.h"
#include "engine/runner/decode_graphs.h"
#include "engine/runner/step_inputs.h"
#include "engine/runner/step_marks.h"
#include "engine/runner/step_outputs.h"
#include "engine/scheduler/step_plan.h"

namespace trireme {

struct RunnerConfig {
  ModelShape shape;
  TensorParallelLayout layout;
  int tp_rank = 0;
  StepPlanLimits limits;
  int steps_ahead = 0;  // how many steps may be launched before an earlier one is collected, beyond that one
};

/// What a step gave: one entry per sampled sequence, ids on every rank, all else on rank 0.
struct StepResults {
  std::vector<int32_t> sampled_ids;
  std::vector<float> logprobs;
  StepLogprobs step_logprobs;  // what else the plan asked for
};

/// What capturing may take: with the shape that reaches a bound on any rank it ends on all.
struct CaptureLimits {
  std::chrono::milliseconds time{60'000};
  int64_t bytes = kMostGraphBytes;  // of each rank's device
};

/// What capturing took.
struct CaptureStats {
  int num_shapes = 0;  // that could be replayed
  int num_graphs = 0;  // that can: fewer where the device's memory holds no more
  double seconds = 0;
  int64_t bytes = 0;  // of the device
  std::string ended;  // why it did before all shapes were captured; else empty
};

class ModelRunner {
 public:
  /// Takes all memory a step needs, now. The arguments must outlive the runner. RESOURCE_EXHAUSTED with the
  /// bytes.
  static absl::StatusOr<std::unique_ptr<ModelRunner>> create(const RunnerConfig& config, Backend& backend,
                                                             ProcessGroup& group, const CausalLm& model,
                                                             KvCache& cache, StepPhases& phases,
                                                             StepProgress& progress);

  ~ModelRunner();

  /// Computes the largest steps there can be, by padding alone. A device loads kernels, and NCCL connects
  /// GPUs, when they are first needed: with this no request waits for it, memory runs out now rather than
  /// then, and buffers that collectives grow have their last addresses before a step is recorded. Collective
  /// over the group; nothing is done where a step is complete when it is launched. Before the first launch().
  void warm_up();

  /// Records decode steps of all decode_shapes(), drawing and the broadcast of its ids included, each once
  /// plain and once with marks of its phases; from then on launch() replays them (StepMarks). Collective over
  /// the group: each shape is computed once before, by padding alone. Call it before the first launch().
  /// Where the limits are reached, or the device's memory gets short, on any rank the largest shapes are left
  /// out: they are launched one operation after the other. Nothing is done where the backend or the group
  /// cannot be captured.
  absl::StatusOr<CaptureStats> capture_decodes(const CaptureLimits& limits = {});

  /// Starts one step and waits for no device. The plan has been checked against config.limits. Later plans
  /// may name the tokens it samples (kLastToken) as soon as this returns: each rank keeps the last token of
  /// every slot in the device's memory. At most steps_ahead + 1 steps are launched and not collected. Only
  /// rank 0 samples, and counts tokens for penalties.
  void launch(const StepPlan& plan);
  /// Waits for the oldest launched step. Its results are valid until steps_ahead + 1 further launches.
  const StepResults& collect();
  /// Both at once.
  const StepResults& run(const StepPlan& plan) {
    launch(plan);
    return collect();
  }
  /// Logits of the last step's sampled rows, host copy, [num_sampled, vocab_size]; on rank 0. For tests and
  /// tools: call it before the next run().
  std::vector<float> last_logits();

  /// Of the moments at which this rank's device came to its collectives, against its own clock; nanoseconds.
  int64_t device_clock_error_ns() const { return marks_ == nullptr ? 0 : marks_->clock_error_ns(); }
  /// Steps that were marked and have been collected.
  uint64_t num_marked_steps() const { return marks_ == nullptr ? 0 : marks_->num_marked(); }
  int64_t workspace_bytes() const { return workspace_.capacity_bytes(); }

 private:
  struct DeviceMemory {
    Buffer activations;
    Buffer inputs;        // of a step: see StepInputs
    Buffer outputs;       // of a step: see StepOutputs
    Buffer last_tokens;   // i32 [max_num_seqs], by slot
    Buffer token_counts;  // rank 0: i32 [max_num_seqs, vocab_size], by slot
  };
  /// What a step in flight has of its own: the device may read a plan and write results while the host is at
  /// the next step.
  struct InFlight {
    Buffer inputs, outputs;  // staging
    std::unique_ptr<Fence> done;
    int64_t num_sampled = 0, num_prompt_logprobs = 0;
    bool has_top_logprobs = false;
    MarkedStep marks;
    StepResults results;
  };

  ModelRunner(const RunnerConfig& config, Backend& backend, ProcessGroup& group, const CausalLm& model,
              KvCache& cache, StepPhases& phases, StepProgress& progress, DeviceMemory memory,
              std::vector<InFlight> in_flight);
  static absl::StatusOr<DeviceMemory> allocate(const RunnerConfig& config, Backend& backend,
                                               ProcessGroup& group);
  static absl::StatusOr<InFlight> allocate_in_flight(const RunnerConfig& config, Backend& backend);
  void wait_for(InFlight& step);
  StepInputs inputs_for(const StepPlan& plan) const;
  StepInputs inputs_for(const DecodeShape& shape) const;
  Tensor token_counts() const;
  void set_token_counts(const StepPlan& plan);
  void replay(const DecodeGraphs::Captured& captured, MarkedStep& marks);
  bool enqueue(const StepTensors& step, const StepOutputs& host, bool count_tokens, MarkedParts* parts);
  void compute_once(const StepPlan& plan, const StepInputs& inputs);
  /// Whether it is so on every rank. Collective; waits.
  bool all_ranks(bool mine);
  /// Adds a shape to graphs_ where it could be recorded on every rank.
  absl::Status capture(const DecodeShape& shape);
  void compute(const StepTensors& step, const StepOutputs& host, bool count_tokens);
  // ---- sampling.cc ----
  Tensor whole_logits(ForwardContext& context, const Tensor& hidden, const Tensor& row_ids);
  void compute_prompt_logprobs(ForwardContext& context, const Tensor& hidden, const StepTensors& step,
                               const StepOutputs& host);
  void sample(const StepTensors& step, bool count_tokens);
  void compute_top_logprobs(const StepTensors& step, const StepOutputs& host);

  RunnerConfig config_;
  Backend& backend_;
  ProcessGroup& group_;
  const CausalLm& model_;
  KvCache& cache_;
  StepPhases& phases_;
  StepProgress& progress_;
  DeviceMemory memory_;
  Workspace workspace_;
  StepOutputs outputs_;  // on the device
  Tensor last_tokens_;
  std::unique_ptr<StepMarks> marks_;  // null where steps are complete when they are launched
  MarkedParts enqueued_parts_;        // of the last marked step that was not replayed
  DecodeGraphs graphs_;
  std::vector<InFlight> in_flight_;  // a ring of steps_ahead + 1
  uint64_t num_launched_ = 0;
  uint64_t num_collected_ = 0;
  Tensor whole_logits_;  // of the last step's sampled rows; rank 0
};

}  // namespace trireme
