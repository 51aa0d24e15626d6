// Any words, and any limits a configuration may give: unpack() refuses them, or gives a plan that packs to
// the same words and whose every index is inside what it points into.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "engine/scheduler/step_plan.h"
#include "kernels/check.h"

using namespace trireme;

namespace {

void check_plan(const StepPlan& plan, const StepPlanLimits& limits) {
  std::vector<bool> slot_used(limits.max_num_seqs);
  size_t block = 0, token = 0, row = 0;
  for (int32_t i = 0; i < plan.num_seqs(); ++i) {
    if (plan.slots[i] != -1) {
      TRIREME_CHECK(!slot_used.at(plan.slots[i]));
      slot_used.at(plan.slots[i]) = true;
    }
    CHECK_LE(plan.context_lens[i], limits.max_context_len);
    for (int32_t position = 0; position < plan.context_lens[i]; ++position)
      CHECK_LT(plan.block_tables.at(block + position / limits.block_size), limits.num_blocks);
    block += plan.num_blocks[i];
    for (int32_t j = 0; j < plan.query_lens[i]; ++j, ++token)
      CHECK_LT(plan.token_ids.at(token), limits.vocab_size);
    row += plan.sample[i];
  }
  for (int32_t id : plan.block_tables) CHECK_GE(id, 0);
  CHECK_EQ(block, plan.block_tables.size());
  CHECK_EQ(token, plan.token_ids.size());
  CHECK_EQ(row, plan.sampling.size());
  CHECK_LE(plan.num_tokens(), limits.max_num_tokens);
}

void check_lists(const StepPlan& plan, const StepPlanLimits& limits) {
  size_t bias = 0, banned = 0, history = 0;
  for (const SamplingRow& row : plan.sampling) {
    bias += row.num_biases;
    banned += row.num_banned;
    history += row.num_history_prompt;
    history += row.num_history_output;
    CHECK_LE(row.num_top_logprobs, kMaxTopLogprobs);
  }
  CHECK_EQ(bias, plan.bias_ids.size());
  CHECK_EQ(bias, plan.biases.size());
  CHECK_EQ(banned, plan.banned_ids.size());
  CHECK_EQ(history, plan.history_ids.size());
  CHECK_EQ(plan.logprob_tokens.size(), plan.logprob_targets.size());
  CHECK_EQ(plan.logprob_tokens.size(), plan.logprob_tops.size());
  for (const auto* ids : {&plan.bias_ids, &plan.banned_ids, &plan.history_ids, &plan.logprob_targets}) {
    for (int32_t id : *ids) {
      CHECK_GE(id, 0);
      CHECK_LT(id, limits.vocab_size);
    }
  }
  for (int32_t token : plan.logprob_tokens) {
    CHECK_GE(token, 0);
    CHECK_LT(token, plan.num_tokens());
  }
}

}  // namespace

// The first six bytes choose the limits, so that small inputs reach their borders.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 6) return 0;
  const StepPlanLimits limits{1 + data[0] % 16, 1 + data[1] % 64, 1 + data[2],
                              1 + data[3] % 32, 1 + data[4] % 32, 1 + data[5]};
  std::vector<int32_t> words((size - 6) / sizeof(int32_t));
  if (!words.empty()) std::memcpy(words.data(), data + 6, words.size() * sizeof(int32_t));
  StepPlan plan;
  if (!unpack(words.data(), words.size(), limits, plan).ok()) return 0;
  check_plan(plan, limits);
  check_lists(plan, limits);
  std::vector<int32_t> again;
  pack(plan, again);
  TRIREME_CHECK(again == words);
  return 0;
}
