#include "engine/runner/decode_graphs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace trireme {
namespace {

using ::testing::ElementsAre;

StepPlanLimits limits(int32_t max_num_seqs, int32_t max_context_len) {
  StepPlanLimits limits;
  limits.max_num_seqs = max_num_seqs;
  limits.max_context_len = max_context_len;
  return limits;
}

std::vector<int32_t> sizes(int32_t max_num_seqs) {
  std::vector<int32_t> all;
  for (const DecodeShape& shape : decode_shapes(limits(max_num_seqs, 100))) all.push_back(shape.num_seqs);
  return all;
}

TEST(DecodeShapesTest, BatchesGrowFinelyAtFirstAndEndAtTheLimit) {
  EXPECT_THAT(sizes(1), ElementsAre(1));
  EXPECT_THAT(sizes(3), ElementsAre(1, 2, 3));
  EXPECT_THAT(sizes(26), ElementsAre(1, 2, 4, 8, 16, 24, 26));
  EXPECT_THAT(sizes(64), ElementsAre(1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64));
  EXPECT_THAT(sizes(100), ElementsAre(1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 100));
  EXPECT_EQ(sizes(4096).back(), 256);
}

TEST(DecodeShapesTest, EveryBatchHasItsContexts) {
  EXPECT_THAT(decode_shapes(limits(2, 4096)), ElementsAre(DecodeShape{1, 4096}, DecodeShape{2, 4096}));
  EXPECT_THAT(decode_shapes(limits(1, 131072)),
              ElementsAre(DecodeShape{1, 4096}, DecodeShape{1, 32768}, DecodeShape{1, 131072}));
  EXPECT_EQ(decode_shapes(limits(1, 2'000'000'000)).back().context_len, 2'000'000'000);
}

/// One query token each, all sampled.
StepPlan decode_of(const std::vector<int32_t>& context_lens) {
  StepPlan plan;
  plan.context_lens = context_lens;
  for (size_t s = 0; s < context_lens.size(); ++s) {
    plan.slots.push_back(static_cast<int32_t>(s));
    plan.query_lens.push_back(1);
    plan.token_ids.push_back(kLastToken);
    plan.sample.push_back(1);
    plan.sampling.emplace_back();
  }
  return plan;
}

TEST(DecodeGraphsTest, APlanTakesTheSmallestShapeItFits) {
  int32_t nothing[64];
  DecodeGraphs graphs;
  for (const DecodeShape& shape : decode_shapes(limits(300, 40000)))
    graphs.add({shape, StepInputs({}, nothing, 1, 1), Tensor(), 0, nullptr, nullptr, {}});
  const auto shape_of = [&](const std::vector<int32_t>& context_lens) {
    return graphs.find(decode_of(context_lens))->shape;
  };
  EXPECT_EQ(shape_of({1}), (DecodeShape{1, 4096}));
  EXPECT_EQ(shape_of({1, 4096, 7}), (DecodeShape{4, 4096}));
  EXPECT_EQ(shape_of({4097, 1}), (DecodeShape{2, 32768}));
  EXPECT_EQ(shape_of(std::vector<int32_t>(200, 40000)), (DecodeShape{224, 40000}));
  EXPECT_EQ(graphs.find(decode_of(std::vector<int32_t>(257, 1))), nullptr) << "more than is captured";
}

TEST(DecodeGraphsTest, OnlyDecodesAreReplayed) {
  EXPECT_TRUE(decode_shape(decode_of({5, 6})).has_value());
  EXPECT_FALSE(decode_shape(StepPlan()).has_value());
  StepPlan chunk = decode_of({5, 6});
  chunk.query_lens[1] = 2;
  chunk.token_ids.push_back(3);
  EXPECT_FALSE(decode_shape(chunk).has_value()) << "several query tokens";
  StepPlan unsampled = decode_of({5, 6});
  unsampled.sample[0] = 0;
  unsampled.sampling.pop_back();
  EXPECT_FALSE(decode_shape(unsampled).has_value()) << "a chunk of one token";
  StepPlan logprobs = decode_of({5});
  logprobs.logprob_tokens = {0};
  EXPECT_FALSE(decode_shape(logprobs).has_value()) << "prompt log probabilities";
}

}  // namespace
}  // namespace trireme
