#pragma once
// What a step reads of its plan, in one piece of device memory: written on the host, copied at once.

#include <array>
#include <cstdint>

#include "engine/scheduler/step_plan.h"
#include "kernels/backend.h"

namespace trireme {

/// How much of each there is room for.
struct StepCounts {
  int64_t tokens = 0;
  int64_t seqs = 0;
  int64_t sampled = 0;
  int64_t prompt_logprobs = 0;
  int64_t blocks_per_seq = 0;  // columns of the block table
  int64_t biases = 0;
  int64_t banned = 0;

  static StepCounts of(const StepPlan& plan);
  /// Of any plan within `limits`.
  static StepCounts largest(const StepPlanLimits& limits);
};

/// Where it is on the device; each [1, count] of i32 unless said otherwise.
struct StepTensors {
  Tensor ids;  // [1, num_tokens]: token ids, or -1 - slot for the last token of a slot
  RaggedBatch batch;
  Tensor sampled_rows;                    // of the last query token of each sampled sequence
  Tensor kept_slots;                      // [1, num_sampled]: where the drawn token is kept; -1: nowhere
  const SamplingRow* sampling = nullptr;  // [num_sampled]
  SamplingLists lists;                    // but for the token counts
  Tensor num_top;                         // [1, num_sampled]
  Tensor logprob_rows, logprob_targets, logprob_tops;
};

class StepInputs {
 public:
  /// Lies at `device`, which has room for num_words() words.
  StepInputs(const StepCounts& counts, void* device, int64_t max_query_len, int64_t max_context_len);

  static int64_t num_words(const StepCounts& counts);
  const StepTensors& tensors() const { return tensors_; }
  /// Writes `plan` to `host`, 16-byte aligned and num_words() long. Where the plan has fewer sequences than
  /// there is room for, what is missing is made up of sequences of one token that belong to nobody: their
  /// slots are -1, they attend over the first token of block 0, and they are sampled.
  void write(const StepPlan& plan, int32_t block_size, int32_t* host) const;
  /// Copies to the device what write() wrote for `plan`.
  void copy_to_device(const StepPlan& plan, const int32_t* host, Backend& backend) const;

 private:
  enum Region : int {
    kSampling,
    kTokens,
    kPositions,
    kSlots,
    kCuQueryLens,
    kContextLens,
    kSampledRows,
    kKeptSlots,
    kCountedSlots,
    kFirstBias,
    kFirstBanned,
    kNumTop,
    kLogprobRows,
    kLogprobTargets,
    kLogprobTops,
    kBlockTables,
    kBiasIds,  // from here on only what a plan has of it is copied
    kBiases,
    kBannedIds,
    kNumRegions,
  };
  static std::array<int64_t, kNumRegions + 1> layout(const StepCounts& counts);
  void write_sequences(const StepPlan& plan, int32_t block_size, int32_t* host) const;
  void write_sampling(const StepPlan& plan, int32_t* host) const;

  StepCounts counts_;
  std::array<int64_t, kNumRegions + 1> begin_;  // of each region, in words; last: the whole
  int32_t* device_;
  StepTensors tensors_;
};

}  // namespace trireme
