#include "engine/runner/step_inputs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

namespace trireme {
namespace {

using ::testing::ElementsAre;

/// A chunk of three tokens in the middle of a prompt, a decode with penalties and bans, and a padding row.
StepPlan mixed_plan() {
  StepPlan plan;
  plan.slots = {5, 2, -1};
  plan.query_lens = {3, 1, 1};
  plan.context_lens = {6, 9, 1};
  plan.num_blocks = {2, 3, 1};
  plan.block_tables = {7, 8, 3, 1, 4, 9};
  plan.token_ids = {20, 21, 22, kLastToken, 0};
  plan.sample = {0, 1, 1};
  plan.sampling.resize(2);
  plan.sampling[0].presence_penalty = 1;
  plan.sampling[0].num_biases = 1;
  plan.sampling[0].num_banned = 2;
  plan.sampling[1].presence_penalty = 1;  // of nobody
  plan.sampling[1].num_banned = 1;
  plan.bias_ids = {11};
  plan.biases = {0.5f};
  plan.banned_ids = {12, 13, 14};
  plan.logprob_tokens = {0, 2};
  plan.logprob_targets = {21, 23};
  plan.logprob_tops = {4, 0};
  return plan;
}

class StepInputsTest : public ::testing::Test {
 protected:
  /// What the device has after a step's words were copied; poison where nothing was.
  const StepTensors& on_device(const StepPlan& plan, const StepCounts& counts) {
    const size_t num_words = static_cast<size_t>(StepInputs::num_words(counts));
    device_.assign(num_words, -77);
    std::vector<int32_t> host(num_words, -88);
    inputs_ = std::make_unique<StepInputs>(counts, device_.data(), 3, 9);
    inputs_->write(plan, 4, host.data());
    inputs_->copy_to_device(plan, host.data(), *backend_);
    return inputs_->tensors();
  }
  static std::vector<int32_t> ints(const Tensor& t) { return {t.as<int32_t>(), t.as<int32_t>() + t.size()}; }
  static std::vector<int32_t> ints(const int32_t* values, int count) { return {values, values + count}; }

  std::unique_ptr<Backend> backend_ = *create_cpu_backend({.num_threads = 1});
  std::vector<int32_t> device_;
  std::unique_ptr<StepInputs> inputs_;
};

TEST_F(StepInputsTest, ThePlanIsOnTheDevice) {
  const StepPlan plan = mixed_plan();
  const StepTensors& step = on_device(plan, StepCounts::of(plan));
  EXPECT_THAT(ints(step.ids), ElementsAre(20, 21, 22, -1 - 2, 0));
  EXPECT_THAT(ints(step.batch.positions), ElementsAre(3, 4, 5, 8, 0));
  EXPECT_THAT(ints(step.batch.slots), ElementsAre(7 * 4 + 3, 8 * 4, 8 * 4 + 1, 4 * 4, -1));
  EXPECT_THAT(ints(step.batch.cu_query_lens), ElementsAre(0, 3, 4, 5));
  EXPECT_THAT(ints(step.batch.context_lens), ElementsAre(6, 9, 1));
  EXPECT_EQ(step.batch.block_tables.cols, 3);
  EXPECT_THAT(ints(step.batch.block_tables), ElementsAre(7, 8, 0, 3, 1, 4, 9, 0, 0));
  EXPECT_THAT(ints(step.sampled_rows), ElementsAre(3, 4));
  EXPECT_THAT(ints(step.kept_slots), ElementsAre(2, -1));
  EXPECT_THAT(ints(step.logprob_rows), ElementsAre(0, 2));
  EXPECT_THAT(ints(step.logprob_targets), ElementsAre(21, 23));
  EXPECT_THAT(ints(step.logprob_tops), ElementsAre(4, 0));
}

TEST_F(StepInputsTest, SamplingRowsFindTheirLists) {
  const StepPlan plan = mixed_plan();
  const StepTensors& step = on_device(plan, StepCounts::of(plan));
  EXPECT_THAT(ints(step.lists.slots, 2), ElementsAre(2, -1));
  EXPECT_THAT(ints(step.lists.first_bias, 2), ElementsAre(0, 1));
  EXPECT_THAT(ints(step.lists.first_banned, 2), ElementsAre(0, 2));
  EXPECT_THAT(ints(step.lists.bias_ids, 1), ElementsAre(11));
  EXPECT_EQ(step.lists.biases[0], 0.5f);
  EXPECT_THAT(ints(step.lists.banned_ids, 3), ElementsAre(12, 13, 14));
  EXPECT_TRUE(step.sampling[0].has_penalties());
  EXPECT_FALSE(step.sampling[1].has_penalties()) << "nobody counts the tokens of a row without a slot";
  EXPECT_EQ(step.sampling[1].num_banned, 1);
}

TEST_F(StepInputsTest, WhatIsMissingIsPaddedWithSequencesOfNobody) {
  StepPlan plan;
  plan.slots = {3};
  plan.query_lens = {1};
  plan.context_lens = {5};
  plan.num_blocks = {2};
  plan.block_tables = {6, 2};
  plan.token_ids = {kLastToken};
  plan.sample = {1};
  plan.sampling.resize(1);
  plan.sampling[0].num_top_logprobs = 7;
  plan.sampling[0].num_banned = 1;
  plan.banned_ids = {40};
  StepCounts counts;
  counts.tokens = counts.seqs = counts.sampled = 3;
  counts.blocks_per_seq = 4;
  counts.biases = 3 * kMaxBiases;
  counts.banned = 3 * kMaxBanned;
  const StepTensors& step = on_device(plan, counts);
  EXPECT_THAT(ints(step.ids), ElementsAre(-4, 0, 0));
  EXPECT_THAT(ints(step.batch.positions), ElementsAre(4, 0, 0));
  EXPECT_THAT(ints(step.batch.slots), ElementsAre(2 * 4, -1, -1));
  EXPECT_THAT(ints(step.batch.cu_query_lens), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(ints(step.batch.context_lens), ElementsAre(5, 1, 1));
  EXPECT_THAT(ints(step.batch.block_tables), ElementsAre(6, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0));
  EXPECT_THAT(ints(step.sampled_rows), ElementsAre(0, 1, 2));
  EXPECT_THAT(ints(step.kept_slots), ElementsAre(3, -1, -1));
  EXPECT_THAT(ints(step.num_top), ElementsAre(7, 0, 0));
  EXPECT_EQ(step.lists.banned_ids[0], 40);
  EXPECT_EQ(step.lists.banned_ids[1], -77) << "only what the plan has is copied";
}

}  // namespace
}  // namespace trireme
