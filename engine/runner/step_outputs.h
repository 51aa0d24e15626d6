#pragma once
// Where a step's results lie: in memory of the device, and in the host memory they are copied to.

#include <cstdint>

#include "engine/scheduler/step_plan.h"
#include "kernels/tensor.h"

namespace trireme {

class StepOutputs {
 public:
  /// One row for each sampled sequence. Ids and log probabilities of the drawn tokens are neighbours, so that
  /// one copy takes both.
  struct Rows {
    Tensor ids, logprobs, target_logprobs;  // [1, num_rows]
    Tensor top_ids, top_logprobs;           // [num_rows, kMaxTopLogprobs]
  };
  /// One row for each prompt token whose log probability was asked for.
  struct PromptRows {
    Tensor logprobs;               // [1, num_rows]
    Tensor top_ids, top_logprobs;  // [num_rows, kMaxTopLogprobs]
  };

  /// In `memory`, which has room for what the limits allow.
  StepOutputs(const StepPlanLimits& limits, void* memory)
      : max_seqs_(limits.max_num_seqs),
        max_tokens_(limits.max_num_tokens),
        words_(static_cast<int32_t*>(memory)) {}
  /// With rows only, as on the device, where prompt tokens take their place a chunk at a time.
  static int64_t num_row_words(const StepPlanLimits& limits) {
    return (3 + 2 * kMaxTopLogprobs) * int64_t{limits.max_num_seqs};
  }
  /// With both.
  static int64_t num_words(const StepPlanLimits& limits) {
    return num_row_words(limits) + (1 + 2 * kMaxTopLogprobs) * int64_t{limits.max_num_tokens};
  }

  Rows rows(int64_t num_rows) const {
    return {vector(0, DType::i32, num_rows), vector(max_seqs_, DType::f32, num_rows),
            vector(2 * max_seqs_, DType::f32, num_rows), table(3 * max_seqs_, DType::i32, num_rows),
            table((3 + kMaxTopLogprobs) * max_seqs_, DType::f32, num_rows)};
  }
  PromptRows prompt_rows(int64_t begin, int64_t num_rows) const {
    const int64_t first = (3 + 2 * kMaxTopLogprobs) * max_seqs_;
    const int64_t tops = first + max_tokens_ + begin * kMaxTopLogprobs;
    return {vector(first + begin, DType::f32, num_rows), table(tops, DType::i32, num_rows),
            table(tops + kMaxTopLogprobs * max_tokens_, DType::f32, num_rows)};
  }

 private:
  Tensor vector(int64_t at, DType dtype, int64_t count) const { return {words_ + at, dtype, 1, count}; }
  Tensor table(int64_t at, DType dtype, int64_t num_rows) const {
    return {words_ + at, dtype, num_rows, kMaxTopLogprobs};
  }

  int64_t max_seqs_, max_tokens_;
  int32_t* words_;
};

}  // namespace trireme
