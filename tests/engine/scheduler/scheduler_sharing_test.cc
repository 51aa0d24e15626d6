// Blocks that sequences share: cached prefixes, samples of one prompt.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/engine/scheduler/scheduler_fixture.h"

namespace trireme {
namespace {

using testing::ElementsAre;

TEST(SchedulerSharingTest, CachedPromptTokensAreNotComputed) {
  Simulation sim(small_config(), kModel);
  ASSERT_OK(sim.add(request_of(18, 3)));
  ASSERT_OK(sim.drain());
  ASSERT_OK(sim.add(request_of(18, 3)));
  ASSERT_OK(sim.step());
  EXPECT_THAT(sim.last_plan().query_lens, ElementsAre(2));
  ASSERT_OK(sim.drain());
  EXPECT_EQ(sim.record(1).num_cached_tokens, 0);
  EXPECT_EQ(sim.record(2).num_cached_tokens, 16);
  EXPECT_EQ(sim.scheduler().stats().cached_prompt_tokens, 16);
  EXPECT_EQ(sim.scheduler().stats().prompt_tokens, 36);
}

TEST(SchedulerSharingTest, LastPromptTokenIsAlwaysComputed) {
  Simulation sim(small_config(), kModel);
  ASSERT_OK(sim.add(request_of(16, 1)));
  ASSERT_OK(sim.drain());
  ASSERT_OK(sim.add(request_of(16, 1)));
  ASSERT_OK(sim.step());
  EXPECT_THAT(sim.last_plan().query_lens, ElementsAre(4));
  ASSERT_OK(sim.drain());
}

TEST(SchedulerSharingTest, OutputOfOneTurnIsCachedForTheNext) {
  Simulation sim(small_config(), kModel);
  ASSERT_OK(sim.add(request_of(6, 10)));
  ASSERT_OK(sim.drain());
  Request next = sim.record(1).request;
  for (int32_t id : sim.record(1).tokens) next.prompt.push_back(id);
  next.prompt.push_back(5);
  ASSERT_OK(sim.add(next));
  ASSERT_OK(sim.drain());
  EXPECT_EQ(sim.record(2).num_cached_tokens, 12);  // 15 tokens were computed: three full blocks
}

TEST(SchedulerSharingTest, EqualPromptsThatArriveTogetherAreComputedOnce) {
  Simulation sim(small_config(), kModel);
  ASSERT_OK(sim.add(request_of(12, 4)));
  ASSERT_OK(sim.add(request_of(12, 4)));
  ASSERT_OK(sim.step());
  EXPECT_THAT(sim.last_plan().query_lens, ElementsAre(12, 4));
  ASSERT_OK(sim.drain());
}

TEST(SchedulerSharingTest, EqualOutputsEndUpInTheSameBlocks) {
  Simulation sim(small_config(), kModel);
  ASSERT_OK(sim.add(request_of(12, 20)));
  ASSERT_OK(sim.add(request_of(12, 20)));
  for (int i = 0; i < 13; ++i) ASSERT_OK(sim.step());
  // 24 tokens are computed for each: six blocks, all of them full.
  EXPECT_EQ(sim.last_plan().context_lens, std::vector<int32_t>({24, 24}));
  const SchedulerStats stats = sim.scheduler().stats();
  EXPECT_EQ(stats.blocks_total - stats.blocks_free, 6);
  ASSERT_OK(sim.drain());
}

TEST(SchedulerSharingTest, PrefixesAreNotSharedBetweenSalts) {
  Simulation sim(small_config(), kModel);
  Request request = request_of(12, 2);
  ASSERT_OK(sim.add(request));
  request.cache_salt = 1;
  ASSERT_OK(sim.add(request));
  ASSERT_OK(sim.drain());
  EXPECT_EQ(sim.record(2).num_cached_tokens, 0);
}

TEST(SchedulerSharingTest, NothingIsSharedWithoutThePrefixCache) {
  SchedulerConfig config = small_config();
  config.enable_prefix_cache = false;
  Simulation sim(config, kModel);
  ASSERT_OK(sim.add(request_of(12, 2)));
  ASSERT_OK(sim.drain());
  ASSERT_OK(sim.add(request_of(12, 2)));
  ASSERT_OK(sim.drain());
  EXPECT_EQ(sim.record(2).num_cached_tokens, 0);
  EXPECT_EQ(sim.scheduler().stats().blocks_cached, 0);
}

/// Blocks in use after the first step of `requests`, which samples them all.
int32_t blocks_used(const SchedulerConfig& config, const std::vector<Request>& requests) {
  Simulation sim(config, kModel);
  for (const Request& request : requests) EXPECT_TRUE(sim.add(request).ok());
  EXPECT_TRUE(sim.step().ok());
  EXPECT_EQ(sim.last_plan().num_sampled(), static_cast<int32_t>(requests.size()));
  const SchedulerStats stats = sim.scheduler().stats();
  EXPECT_TRUE(sim.drain().ok());
  EXPECT_EQ(sim.scheduler().stats().blocks_cached > 0, config.enable_prefix_cache);
  return stats.blocks_total - stats.blocks_free;
}

TEST(SchedulerSharingTest, EightSamplesOfAPromptTakeAnEighthOfTheBlocksOfEightPrompts) {
  SchedulerConfig config = small_config();
  config.max_num_seqs = 8;
  config.max_step_tokens = 8000;
  config.max_context_len = 1100;
  config.num_blocks = 600;
  config.block_size = 16;
  std::vector<Request> prompts, samples;
  for (uint32_t i = 0; i < 8; ++i) {
    prompts.push_back(request_of(1000, 20));
    for (int32_t& id : prompts.back().prompt) id = (id + static_cast<int32_t>(i)) % kModel.vocab_size;
    samples.push_back(request_of(1000, 20));
    samples.back().sampling.sample_index = i;
    samples.back().prompt_group = 1;
  }
  for (const bool enable_prefix_cache : {true, false}) {
    config.enable_prefix_cache = enable_prefix_cache;
    EXPECT_EQ(blocks_used(config, prompts), 8 * 63);
    // 62 full blocks together, and one of 8 prompt tokens and what follows them for each.
    EXPECT_EQ(blocks_used(config, samples), 62 + 8);
  }
}

TEST(SchedulerSharingTest, SamplesOfAnotherRequestAreNotSharedWithoutThePrefixCache) {
  SchedulerConfig config = small_config();
  config.enable_prefix_cache = false;
  Simulation sim(config, kModel);
  Request request = request_of(12, 2);
  for (const RequestHandle group : {1, 1, 3, 3}) {
    request.prompt_group = group;
    ASSERT_OK(sim.add(request));
  }
  ASSERT_OK(sim.drain());
  EXPECT_EQ(sim.record(1).num_cached_tokens, 0);
  EXPECT_EQ(sim.record(2).num_cached_tokens, 8);
  EXPECT_EQ(sim.record(3).num_cached_tokens, 0);
  EXPECT_EQ(sim.record(4).num_cached_tokens, 8);
}

}  // namespace
}  // namespace trireme
