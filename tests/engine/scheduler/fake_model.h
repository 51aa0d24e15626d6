#pragma once
// A model whose every token depends on the whole history before it, and which remembers what it wrote where.

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/request.h"
#include "engine/scheduler/scheduler.h"
#include "engine/scheduler/step_plan.h"

namespace trireme {

struct FakeModelConfig {
  int32_t vocab_size = 0;
  uint64_t nan_every = 0;  // one history in so many gives NaN logits; 0: none
};

/// All outputs of a request that runs alone and from its beginning, without batching, blocks or caches.
struct ReferenceRun {
  std::vector<int32_t> tokens;
  FinishReason finish = FinishReason::none;
  PromptLogprobs prompt_logprobs;  // where asked for
};
ReferenceRun run_alone(const FakeModelConfig& model, const Request& request);

/// Executes plans on a KV cache that keeps, in the place of K and V, each token, its position, and a hash of
/// all that came before it: what the K and V of a deep layer depend on. Attention fails unless it reads the
/// very history that its own tokens imply, and sampling with penalties unless exactly that has been counted.
class FakeModel {
 public:
  FakeModel(const FakeModelConfig& model, const SchedulerConfig& scheduler);

  /// Sends the plan through pack() and unpack(), checks and runs it. Ids of the sampled rows, -1 for NaN.
  absl::StatusOr<std::vector<int32_t>> run(const StepPlan& plan);
  /// What else the last run gave.
  const StepLogprobs& step_logprobs() const { return step_logprobs_; }

 private:
  struct Entry {
    int32_t token_id = -1;
    int32_t position = -1;
    uint64_t history = 0;     // of all tokens up to this one
    uint64_t written_by = 0;  // step
  };
  struct Row {
    const int32_t* table;
    int32_t slot, query_len, context_len;
    const int32_t* token_ids;
  };

  Entry& entry(const Row& row, int32_t position);
  absl::Status store(const Row& row, uint64_t step);
  absl::Status attend(const Row& row, bool check_history);
  absl::Status count(const Row& row, const SamplingRow& sampling, const int32_t* history);
  absl::Status give_prompt_logprobs(const StepPlan& plan, const std::vector<Row>& rows);

  FakeModelConfig model_;
  SchedulerConfig scheduler_;
  std::vector<Entry> cache_;                   // [num_blocks, block_size]
  std::vector<int32_t> last_tokens_;           // [max_num_seqs]
  std::vector<std::vector<int32_t>> counted_;  // [max_num_seqs]: what penalties have seen, in order
  StepLogprobs step_logprobs_;
  std::vector<int32_t> words_;
  uint64_t last_step_ = 0;
};

}  // namespace trireme
