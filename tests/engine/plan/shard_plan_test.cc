#include "engine/plan/shard_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/plan/byte_ledger.h"

namespace trireme {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

ModelShape llama_70b() {
  ModelShape model;
  model.name = "70b";
  model.hidden_size = 8192;
  model.intermediate_size = 28672;
  model.num_layers = 80;
  model.num_heads = 64;
  model.num_kv_heads = 8;
  model.head_dim = 128;
  model.vocab_size = 128256;
  model.weight_dtype_bytes = 2;
  model.kv_dtype_bytes = 2;
  return model;
}

std::vector<RankInventory> ranks_with(int count, int64_t gib) {
  return std::vector<RankInventory>(count, RankInventory{"host", "cpu", gib << 30});
}

TEST(LayoutTest, HeadsAreCutAndKvHeadsFollow) {
  const auto layout = layout_tensor_parallel(llama_70b(), 4);
  ASSERT_TRUE(layout.ok());
  EXPECT_EQ(layout->heads[3].head_begin, 48);
  EXPECT_EQ(layout->heads[3].head_end, 64);
  EXPECT_EQ(layout->heads[3].kv_head_begin, 6);
  EXPECT_EQ(layout->heads[3].kv_head_end, 8);
  EXPECT_EQ(layout->intermediate_per_rank, 7168);
}

TEST(LayoutTest, KvHeadsAreRepeatedWhenThereAreFewerThanRanks) {
  ModelShape model = llama_70b();
  model.num_heads = 8;
  model.num_kv_heads = 2;
  const auto layout = layout_tensor_parallel(model, 8);
  ASSERT_TRUE(layout.ok());
  std::vector<int> kv_heads;
  for (const HeadGroup& heads : layout->heads) {
    EXPECT_EQ(heads.kv_head_end - heads.kv_head_begin, 1);
    kv_heads.push_back(heads.kv_head_begin);
  }
  EXPECT_THAT(kv_heads, ElementsAre(0, 0, 0, 0, 1, 1, 1, 1));
}

TEST(LayoutTest, VocabularyIsPaddedToCoverEveryId) {
  ModelShape model = llama_70b();
  model.vocab_size = 1001;
  const auto layout = layout_tensor_parallel(model, 4);
  ASSERT_TRUE(layout.ok());
  EXPECT_EQ(layout->vocab_per_rank, 256);
}

TEST(LayoutTest, WhatDoesNotDivideIsRefusedWithTheReason) {
  ModelShape model = llama_70b();
  EXPECT_THAT(std::string(layout_tensor_parallel(model, 3).status().message()), HasSubstr("num_heads 64"));
  model.intermediate_size = 28674;
  EXPECT_THAT(std::string(layout_tensor_parallel(model, 4).status().message()),
              HasSubstr("intermediate_size 28674"));
  model = llama_70b();
  model.num_heads = 60;
  model.num_kv_heads = 6;
  EXPECT_THAT(std::string(layout_tensor_parallel(model, 4).status().message()), HasSubstr("num_kv_heads 6"));
  EXPECT_FALSE(layout_tensor_parallel(model, 0).ok());
}

TEST(RankBytesTest, SeventyBillionParametersTakeTheirBytes) {
  const ModelShape model = llama_70b();
  const auto one = layout_tensor_parallel(model, 1);
  const RankBytes whole = rank_bytes(model, *one, 0, 512, 64);
  // 70.55e9 parameters of 2 bytes; norms in f32 add 5 MB.
  EXPECT_NEAR(static_cast<double>(whole.weights), 141.1e9, 0.1e9);
  EXPECT_EQ(whole.kv_per_token, 320 * 1024);
  const auto eight = layout_tensor_parallel(model, 8);
  const RankBytes part = rank_bytes(model, *eight, 5, 512, 64);
  EXPECT_NEAR(static_cast<double>(part.weights), 141.1e9 / 8, 0.01e9);
  EXPECT_EQ(part.kv_per_token, 40 * 1024);
}

TEST(RankBytesTest, TheLeaderCountsTokensOfEverySequence) {
  const ModelShape model = llama_70b();
  const auto two = layout_tensor_parallel(model, 2);
  EXPECT_EQ(rank_bytes(model, *two, 0, 512, 64).token_counts, int64_t{4} * 64 * 128256);
  EXPECT_EQ(rank_bytes(model, *two, 1, 512, 64).token_counts, 0);
}

TEST(RankBytesTest, ActivationsFollowTheirDtypeAndLogitsDoNot) {
  ModelShape model = llama_70b();
  const auto two = layout_tensor_parallel(model, 2);
  const int64_t logits = int64_t{4} * 64 * 3 * two->vocab_per_rank;  // the leader has its part and the whole
  const int64_t wide = rank_bytes(model, *two, 0, 512, 64).activations;
  model.activation_dtype_bytes = 2;
  EXPECT_EQ(2 * (rank_bytes(model, *two, 0, 512, 64).activations - logits), wide - logits);
}

TEST(PlanShardsTest, ChoosesTheSmallestSizeThatFits) {
  const auto plan = plan_shards(llama_70b(), ranks_with(8, 40), 0);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->tp_size, 4);
  EXPECT_THAT(plan->replicas, ElementsAre(ElementsAre(0, 1, 2, 3), ElementsAre(4, 5, 6, 7)));
}

TEST(PlanShardsTest, OneRankThatFitsIsAReplicaByItself) {
  const auto plan = plan_shards(llama_70b(), ranks_with(2, 200), 0);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->tp_size, 1);
  EXPECT_EQ(plan->replicas.size(), 2u);
}

TEST(PlanShardsTest, SaysWhatIsMissing) {
  EXPECT_THAT(std::string(plan_shards(llama_70b(), ranks_with(2, 40), 0).status().message()),
              HasSubstr("tensor-parallel size 2 needs"));
  EXPECT_THAT(std::string(plan_shards(llama_70b(), ranks_with(3, 400), 2).status().message()),
              HasSubstr("the job has 3 ranks, of which tensor-parallel size 2 can use 2"));
  EXPECT_THAT(std::string(plan_shards(llama_70b(), ranks_with(2, 400), 4).status().message()),
              HasSubstr("needs 4 ranks; the job has 2"));
  EXPECT_EQ(plan_shards(llama_70b(), {}, 1).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(plan_shards(llama_70b(), ranks_with(2, 400), -1).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(ByteLedgerTest, KindsAddUpToWhatARankHolds) {
  const ModelShape model = llama_70b();
  const auto two = layout_tensor_parallel(model, 2);
  const RankBytes bytes = rank_bytes(model, *two, 0, 512, 64, cuda_overhead(2));
  ByteLedger ledger;
  ledger.lines = predicted_lines(bytes, 1000);
  EXPECT_EQ(ledger.lines.size(), 8u);
  EXPECT_EQ(ledger.total_predicted(), bytes.weights + 1000 + bytes.beside_weights());
  const RankBytes follower = rank_bytes(model, *two, 1, 512, 64);
  EXPECT_EQ(predicted_lines(follower, 1000).size(), 3u);
}

TEST(KvCacheBudgetTest, IsAShareOfWhatIsLeft) {
  RankBytes bytes;
  bytes.activations = 300;
  bytes.token_counts = 50;
  bytes.device = {20, 10, 10, 10};
  EXPECT_EQ(bytes.beside_weights(), 400);
  EXPECT_EQ(kv_cache_budget(1400, bytes), 900);
  EXPECT_EQ(kv_cache_budget(1400, bytes, 0.5), 500);
  EXPECT_LT(kv_cache_budget(300, bytes), 0);
}

TEST(ByteLedgerTest, PrintsPredictedBesideMeasured) {
  ByteLedger ledger;
  ledger.rank = 3;
  ledger.lines = {{"weights", 100 << 20, 104 << 20}, {"KV cache", 50 << 20, -1}};
  ledger.resident_bytes = 160 << 20;
  EXPECT_EQ(ledger.total_predicted(), 150 << 20);
  const std::string text = ledger.to_text();
  EXPECT_THAT(text, HasSubstr("weights               100.0        104.0"));
  EXPECT_THAT(text, HasSubstr("resident              150.0        160.0"));
  EXPECT_THAT(text, HasSubstr("rank 3"));
  EXPECT_THAT(text, Not(HasSubstr("share")));
  ledger.num_sharers = 2;
  EXPECT_THAT(ledger.to_text(), HasSubstr("2 ranks share the GPU: of its memory 1/2 is counted here"));
}

}  // namespace
}  // namespace trireme
