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
};

class ModelRunner {
 public:
  /// Takes all memory a step needs, now. The arguments must outlive the runner. RESOURCE_EXHAUSTED with the
  /// bytes.
  static absl::StatusOr<std::unique_ptr<ModelRunner>> create(const RunnerConfig& config, Backend& backend,
                                                             ProcessGroup& group, const CausalLm& model,
                                                             KvCache& cache, StepPhases& phases,
                                                             StepProgress& progress);

  /// Runs one step. The plan has been checked against config.limits. Afterwards sampled_ids() and logprobs()
  /// hold one entry per sampled sequence (ids on every rank, logprobs on rank 0), and each rank knows the
  /// last token of every slot.
  void run(const StepPlan& plan);
  const std::vector<int32_t>& sampled_ids() const { return sampled_ids_; }
  const std::vector<float>& logprobs() const { return logprobs_; }
  /// Logits of the last step's sampled rows, host copy, [num_sampled, vocab_size]; on rank 0. For tests and
  /// tools: call it before the next run().
  std::vector<float> last_logits();

  int64_t workspace_bytes() const { return workspace_bytes_; }

 private:
  ModelRunner(const RunnerConfig& config, Backend& backend, ProcessGroup& group, const CausalLm& model,
              KvCache& cache, StepPhases& phases, StepProgress& progress, Workspace workspace,
              Buffer index_memory);
  Tensor upload(const StepPlan& plan, RaggedBatch& batch, Tensor& sampled_rows);
  void sample(const StepPlan& plan, const Tensor& local_logits);

  RunnerConfig config_;
  Backend& backend_;
  ProcessGroup& group_;
  const CausalLm& model_;
  KvCache& cache_;
  StepPhases& phases_;
  StepProgress& progress_;
  Workspace workspace_;
  int64_t workspace_bytes_ = 0;
  Buffer index_memory_;               // a plan's integers on the device
  std::vector<int32_t> staging_;      // the same on the host
  std::vector<int32_t> last_tokens_;  // by slot
  std::vector<int32_t> sampled_ids_;
  std::vector<float> logprobs_;
  Tensor whole_logits_;  // of the last step; rank 0
};

}  // namespace trireme
