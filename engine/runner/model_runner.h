#pragma once
// Runs step plans: uploads a plan's integers, calls the model, samples. The same on every rank.

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/layers/forward_context.h"
#include "engine/models/causal_lm.h"
#include "engine/plan/shard_plan.h"
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

class ModelRunner {
 public:
  /// Takes all memory a step needs, now. The arguments must outlive the runner. RESOURCE_EXHAUSTED with the
  /// bytes.
  static absl::StatusOr<std::unique_ptr<ModelRunner>> create(const RunnerConfig& config, Backend& backend,
                                                             ProcessGroup& group, const CausalLm& model,
                                                             KvCache& cache, StepPhases& phases,
                                                             StepProgress& progress);

  /// Starts one step. The plan has been checked against config.limits. Later plans may name the tokens it
  /// samples (kLastToken) as soon as this returns: each rank keeps the last token of every slot. At most
  /// steps_ahead + 1 steps are launched and not collected. Only rank 0 samples, and counts tokens for
  /// penalties.
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

  int64_t workspace_bytes() const { return workspace_bytes_; }

 private:
  ModelRunner(const RunnerConfig& config, Backend& backend, ProcessGroup& group, const CausalLm& model,
              KvCache& cache, StepPhases& phases, StepProgress& progress, Workspace workspace,
              Buffer index_memory, Buffer token_counts);
  /// A plan's integers on the device, each [1, count].
  struct UploadedPlan {
    Tensor ids, sampled_rows, logprob_rows, logprob_targets;
  };
  /// Where the device puts what a step gives, behind the largest plan in the index memory.
  struct Results {
    Tensor ids, logprobs, target_logprobs;  // [1, num_rows]
    Tensor top_ids, top_logprobs;           // [num_rows, kMaxTopLogprobs]
  };
  UploadedPlan upload(const StepPlan& plan, RaggedBatch& batch);
  Results results(int64_t num_rows) const;
  // ---- sampling.cc ----
  Tensor whole_logits(ForwardContext& context, const Tensor& hidden, const Tensor& row_ids);
  void compute_prompt_logprobs(ForwardContext& context, const StepPlan& plan, const Tensor& hidden,
                               const UploadedPlan& uploaded);
  void sample(const StepPlan& plan);
  void draw(const StepPlan& plan, const Results& results);
  void compute_top_logprobs(const StepPlan& plan, const Results& results);

  RunnerConfig config_;
  Backend& backend_;
  ProcessGroup& group_;
  const CausalLm& model_;
  KvCache& cache_;
  StepPhases& phases_;
  StepProgress& progress_;
  Workspace workspace_;
  int64_t workspace_bytes_ = 0;
  Buffer index_memory_;               // a plan's integers on the device, then results
  Buffer token_counts_;               // rank 0: i32 [max_num_seqs, vocab_size], by slot
  std::vector<int32_t> staging_;      // the same on the host
  std::vector<int32_t> last_tokens_;  // by slot
  std::vector<StepResults> results_;  // a ring of steps_ahead + 1
  StepResults* step_ = nullptr;       // of the step that is being launched
  uint64_t num_launched_ = 0;
  uint64_t num_collected_ = 0;
  std::vector<int32_t> counted_slots_;  // of the sampled rows: the slot with penalties, else -1
  std::vector<int32_t> num_top_;        // how many top logprobs each asks for
  Tensor whole_logits_;                 // of the last step's sampled rows; rank 0
};

}  // namespace trireme
