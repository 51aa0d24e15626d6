#include "engine/scheduler/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "tests/engine/scheduler/simulation.h"

namespace trireme {
namespace {

using testing::AllOf;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Le;

#define ASSERT_OK(expression)                     \
  do {                                            \
    const absl::Status got_status = (expression); \
    ASSERT_TRUE(got_status.ok()) << got_status;   \
  } while (false)

constexpr FakeModelConfig kModel{1000, 0};

SchedulerConfig small_config() {
  SchedulerConfig config;
  config.max_num_seqs = 4;
  config.max_step_tokens = 16;
  config.max_context_len = 64;
  config.num_blocks = 64;
  config.block_size = 4;
  config.vocab_size = kModel.vocab_size;
  return config;
}

Request request_of(int32_t num_prompt_tokens, int32_t max_tokens, int32_t first_token = 0) {
  Request request;
  request.prompt.resize(num_prompt_tokens);
  std::iota(request.prompt.begin(), request.prompt.end(), first_token);
  request.stopping.max_tokens = max_tokens;
  request.sampling.seed = 7;
  return request;
}

TEST(SchedulerTest, PromptIsComputedInChunksOfTheBudgetAndSampledOnlyAtItsEnd) {
  Simulation sim(small_config(), kModel);
  ASSERT_OK(sim.add(request_of(40, 2)));
  ASSERT_OK(sim.step());
  EXPECT_THAT(sim.last_plan().query_lens, ElementsAre(16));
  EXPECT_THAT(sim.last_plan().sample, ElementsAre(0));
  ASSERT_OK(sim.step());
  ASSERT_OK(sim.step());
  EXPECT_THAT(sim.last_plan().query_lens, ElementsAre(8));
  EXPECT_THAT(sim.last_plan().context_lens, ElementsAre(40));
  EXPECT_THAT(sim.last_plan().sample, ElementsAre(1));
  ASSERT_OK(sim.step());
  EXPECT_THAT(sim.last_plan().token_ids, ElementsAre(kLastToken));
  ASSERT_OK(sim.drain());
}

TEST(SchedulerTest, DecodesComeFirstAndALongPromptFillsWhatIsLeft) {
  Simulation sim(small_config(), kModel);
  ASSERT_OK(sim.add(request_of(3, 20, 100)));
  ASSERT_OK(sim.add(request_of(4, 20, 200)));
  ASSERT_OK(sim.step());
  ASSERT_OK(sim.add(request_of(50, 5, 300)));
  for (int i = 0; i < 3; ++i) {
    ASSERT_OK(sim.step());
    EXPECT_THAT(sim.last_plan().query_lens, ElementsAre(1, 1, 14));
  }
  ASSERT_OK(sim.drain());
}

TEST(SchedulerTest, EveryDecodeFitsTheBudgetWhenItIsSmallerThanTheNumberOfSlots) {
  SchedulerConfig config = small_config();
  config.max_num_seqs = 8;
  config.max_step_tokens = 3;
  Simulation sim(config, kModel);
  for (int i = 0; i < 8; ++i) ASSERT_OK(sim.add(request_of(2, 10, 10 * i)));
  while (sim.scheduler().has_work()) {
    ASSERT_OK(sim.step());
    EXPECT_LE(sim.last_plan().num_tokens(), 3);
  }
  ASSERT_OK(sim.drain());
}

TEST(SchedulerTest, CachedPromptTokensAreNotComputed) {
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

TEST(SchedulerTest, LastPromptTokenIsAlwaysComputed) {
  Simulation sim(small_config(), kModel);
  ASSERT_OK(sim.add(request_of(16, 1)));
  ASSERT_OK(sim.drain());
  ASSERT_OK(sim.add(request_of(16, 1)));
  ASSERT_OK(sim.step());
  EXPECT_THAT(sim.last_plan().query_lens, ElementsAre(4));
  ASSERT_OK(sim.drain());
}

TEST(SchedulerTest, OutputOfOneTurnIsCachedForTheNext) {
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

TEST(SchedulerTest, EqualPromptsThatArriveTogetherAreComputedOnce) {
  Simulation sim(small_config(), kModel);
  ASSERT_OK(sim.add(request_of(12, 4)));
  ASSERT_OK(sim.add(request_of(12, 4)));
  ASSERT_OK(sim.step());
  EXPECT_THAT(sim.last_plan().query_lens, ElementsAre(12, 4));
  ASSERT_OK(sim.drain());
}

TEST(SchedulerTest, EqualOutputsEndUpInTheSameBlocks) {
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

TEST(SchedulerTest, PrefixesAreNotSharedBetweenSalts) {
  Simulation sim(small_config(), kModel);
  Request request = request_of(12, 2);
  ASSERT_OK(sim.add(request));
  request.cache_salt = 1;
  ASSERT_OK(sim.add(request));
  ASSERT_OK(sim.drain());
  EXPECT_EQ(sim.record(2).num_cached_tokens, 0);
}

TEST(SchedulerTest, NothingIsSharedWithoutThePrefixCache) {
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

TEST(SchedulerTest, EightSamplesOfAPromptTakeAnEighthOfTheBlocksOfEightPrompts) {
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

TEST(SchedulerTest, SamplesOfAnotherRequestAreNotSharedWithoutThePrefixCache) {
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

TEST(SchedulerTest, LowerPriorityNumberIsAdmittedFirst) {
  SchedulerConfig config = small_config();
  config.max_num_seqs = 1;
  Simulation sim(config, kModel);
  ASSERT_OK(sim.add(request_of(4, 2, 10)));
  ASSERT_OK(sim.step());
  Request late = request_of(4, 2, 20);
  late.priority = 1;
  ASSERT_OK(sim.add(late));
  late.priority = -1;
  ASSERT_OK(sim.add(late));
  while (sim.record(3).finish == FinishReason::none) ASSERT_OK(sim.step());
  EXPECT_TRUE(sim.record(2).tokens.empty());
  ASSERT_OK(sim.drain());
}

TEST(SchedulerTest, WaitingMakesUpForAWorsePriority) {
  SchedulerConfig config = small_config();
  config.max_num_seqs = 1;
  config.ageing_steps = 10;
  Simulation sim(config, kModel);
  Request patient = request_of(4, 2, 10);
  patient.priority = 2;
  ASSERT_OK(sim.add(request_of(4, 2, 500)));
  ASSERT_OK(sim.add(patient));
  // A stream of urgent requests, always two in the queue: it is passed by for 2 * 10 steps, no longer.
  ASSERT_OK(sim.add(request_of(4, 2, 20)));
  for (int i = 0; sim.record(2).tokens.empty(); ++i) {
    ASSERT_LT(i, 30);
    if (sim.scheduler().stats().waiting < 3) ASSERT_OK(sim.add(request_of(4, 2, 30 + i)));
    ASSERT_OK(sim.step());
  }
  EXPECT_GT(sim.scheduler().stats().steps, 20);
  ASSERT_OK(sim.drain());
}

TEST(SchedulerTest, FirstInLineIsNotPassedByASmallerOne) {
  SchedulerConfig config = small_config();
  config.num_blocks = 16;
  Simulation sim(config, kModel);
  ASSERT_OK(sim.add(request_of(40, 10, 100)));
  for (int i = 0; i < 3; ++i) ASSERT_OK(sim.step());
  ASSERT_OK(sim.add(request_of(40, 2, 200)));
  ASSERT_OK(sim.add(request_of(3, 2, 300)));
  for (int i = 0; i < 5; ++i) ASSERT_OK(sim.step());
  EXPECT_TRUE(sim.record(3).tokens.empty());
  ASSERT_OK(sim.drain());
}

TEST(SchedulerTest, YoungestIsPreemptedAndGivesTheSameTokens) {
  SchedulerConfig config = small_config();
  config.num_blocks = 10;
  Simulation sim(config, kModel);
  for (int i = 0; i < 3; ++i) ASSERT_OK(sim.add(request_of(8, 20, 100 * i)));
  while (sim.scheduler().stats().preemptions == 0) ASSERT_OK(sim.step());
  EXPECT_EQ(sim.scheduler().stats().waiting, 1);
  while (sim.record(1).finish == FinishReason::none) ASSERT_OK(sim.step());
  EXPECT_LT(sim.record(3).tokens.size(), sim.record(2).tokens.size());
  ASSERT_OK(sim.drain());
}

TEST(SchedulerTest, NewcomerLeavesABlockForEachRunningSequenceToGrowInto) {
  SchedulerConfig config = small_config();
  config.num_blocks = 6;
  Simulation sim(config, kModel);
  ASSERT_OK(sim.add(request_of(4, 9, 100)));  // three blocks in the end
  ASSERT_OK(sim.add(request_of(4, 9, 200)));
  ASSERT_OK(sim.step());
  ASSERT_OK(sim.add(request_of(8, 5, 300)));  // would leave none for the three
  ASSERT_OK(sim.drain());
  EXPECT_EQ(sim.scheduler().stats().preemptions, 0);
}

TEST(SchedulerTest, WhatWasPreemptedDoesNotComeBackInTheSameStep) {
  SchedulerConfig config = small_config();
  config.num_blocks = 6;
  Simulation sim(config, kModel);
  ASSERT_OK(sim.add(request_of(4, 17)));
  ASSERT_OK(sim.add(request_of(4, 17, 200)));
  while (sim.scheduler().stats().preemptions == 0) ASSERT_OK(sim.step());
  EXPECT_EQ(sim.last_plan().num_seqs(), 1);
  ASSERT_OK(sim.drain());
  EXPECT_EQ(sim.scheduler().stats().preemptions, 1);
}

TEST(SchedulerTest, WorstPriorityIsPreemptedEvenIfItIsTheOldest) {
  SchedulerConfig config = small_config();
  config.num_blocks = 10;
  Simulation sim(config, kModel);
  Request request = request_of(8, 20);
  request.priority = 1;
  ASSERT_OK(sim.add(request));
  ASSERT_OK(sim.step());
  ASSERT_OK(sim.add(request_of(8, 20, 300)));
  while (sim.scheduler().stats().preemptions == 0) ASSERT_OK(sim.step());
  const size_t num_tokens = sim.record(1).tokens.size();
  while (sim.record(2).finish == FinishReason::none) ASSERT_OK(sim.step());
  EXPECT_EQ(sim.record(1).tokens.size(), num_tokens);
  ASSERT_OK(sim.drain());
}

TEST(SchedulerTest, RequestThatNeedsTheWholeCacheRuns) {
  SchedulerConfig config = small_config();
  config.num_blocks = 5;
  Simulation sim(config, kModel);
  ASSERT_OK(sim.add(request_of(11, 10)));  // 20 tokens are stored, the last one is not
  ASSERT_OK(sim.add(request_of(20, 1, 400)));
  ASSERT_OK(sim.drain());
}

TEST(SchedulerTest, WhatCanNeverFitIsRefused) {
  SchedulerConfig config = small_config();
  Simulation context(config, kModel);
  absl::Status status = context.add(request_of(60, 5));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), AllOf(HasSubstr("60 + 5 = 65"), HasSubstr("64")));
  ASSERT_OK(context.add(request_of(60, 4)));

  config.num_blocks = 5;
  Simulation cache(config, kModel);
  status = cache.add(request_of(11, 11));
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(status.message(), AllOf(HasSubstr("need 6 blocks"), HasSubstr("has 5")));
  EXPECT_FALSE(cache.scheduler().has_work());
}

TEST(SchedulerTest, RefusesWhatNoPlanCouldCarry) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<std::pair<const char*, void (*)(Request&)>> cases = {
      {"prompt tokens: got 0", [](Request& r) { r.prompt.clear(); }},
      {"prompt token id: got -1", [](Request& r) { r.prompt[1] = -1; }},
      {"prompt token id: got 1000", [](Request& r) { r.prompt[1] = 1000; }},
      {"max_tokens: got 0", [](Request& r) { r.stopping.max_tokens = 0; }},
      {"2147483647", [](Request& r) { r.stopping.max_tokens = std::numeric_limits<int32_t>::max(); }},
      {"temperature", [](Request& r) { r.sampling.temperature = -1; }},
      {"top_k", [](Request& r) { r.sampling.top_k = -1; }},
      {"top_p", [](Request& r) { r.sampling.top_p = 0; }},
      {"min_p", [](Request& r) { r.sampling.min_p = 2; }},
  };
  Simulation sim(small_config(), kModel);
  for (const auto& [message, spoil] : cases) {
    Request request = request_of(4, 4);
    spoil(request);
    const absl::Status status = sim.add(request);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << message;
    EXPECT_THAT(status.message(), HasSubstr(message));
  }
  Request request = request_of(4, 4);
  request.sampling.temperature = nan;
  EXPECT_EQ(sim.add(request).code(), absl::StatusCode::kInvalidArgument);
}

TEST(SchedulerTest, ResumedAtEveryCutItGivesTheTokensOfAnUnbrokenRun) {
  Request request = request_of(7, 12);
  request.stopping.min_tokens = 9;
  // Each stop is where a run without it passes: the first before min_tokens, where it is not drawn.
  request.stopping.stop_token_ids = {run_alone(kModel, request).tokens.at(4)};
  request.stopping.stop_token_ids.push_back(run_alone(kModel, request).tokens.at(10));
  const std::vector<int32_t> whole = run_alone(kModel, request).tokens;
  ASSERT_EQ(whole.size(), 11u);
  for (size_t cut = 0; cut < 11; ++cut) {
    Simulation sim(small_config(), kModel);
    ASSERT_OK(sim.add(request_of(5, 20, 100)));  // for company
    request.resumed_outputs.assign(whole.begin(), whole.begin() + cut);
    ASSERT_OK(sim.add(request));
    ASSERT_OK(sim.drain());
    EXPECT_EQ(sim.record(2).tokens.size(), 11u) << "cut at " << cut;
    EXPECT_EQ(sim.record(2).finish, FinishReason::stop);
  }
}

TEST(SchedulerTest, ResumedOutputsMustBeIdsAndLeaveATokenToProduce) {
  Simulation sim(small_config(), kModel);
  Request request = request_of(4, 3);
  request.resumed_outputs = {1, 2, 3};
  const absl::Status full = sim.add(request);
  EXPECT_TRUE(absl::IsInvalidArgument(full));
  EXPECT_THAT(std::string(full.message()), HasSubstr("resumed outputs: got 3"));
  for (const int32_t id : {-1, kModel.vocab_size}) {
    request.resumed_outputs = {1, id};
    EXPECT_TRUE(absl::IsInvalidArgument(sim.add(request))) << id;
  }
  request.resumed_outputs = run_alone(kModel, request).tokens;
  request.resumed_outputs.pop_back();
  ASSERT_OK(sim.add(request));
  ASSERT_OK(sim.drain());
}

TEST(SchedulerTest, HandleInUseIsRefused) {
  Scheduler scheduler(small_config());
  ASSERT_OK(scheduler.add(request_of(4, 4)));
  EXPECT_EQ(scheduler.add(request_of(4, 4)).code(), absl::StatusCode::kAlreadyExists);
}

TEST(SchedulerTest, StopTokenStopsOnlyFromMinTokensOn) {
  const ReferenceRun run = run_alone(kModel, request_of(5, 10));
  Request request = request_of(5, 10);
  request.stopping.stop_token_ids = {run.tokens[2], run.tokens[6]};
  Simulation sim(small_config(), kModel);
  ASSERT_OK(sim.add(request));
  request.stopping.min_tokens = 4;
  ASSERT_OK(sim.add(request));
  ASSERT_OK(sim.drain());
  EXPECT_EQ(sim.record(1).tokens.size(), 3u);
  EXPECT_EQ(sim.record(1).finish, FinishReason::stop);
  const std::vector<int32_t>& tokens = sim.record(2).tokens;  // those of a run alone, or the simulation fails
  ASSERT_GE(tokens.size(), 5u);
  EXPECT_EQ(std::vector(tokens.begin(), tokens.begin() + 2),
            std::vector(run.tokens.begin(), run.tokens.begin() + 2));
  for (size_t i = 0; i < 4; ++i)
    EXPECT_THAT(request.stopping.stop_token_ids, ::testing::Not(::testing::Contains(tokens[i])));
}

TEST(SchedulerTest, NumericalErrorEndsThatRequestAloneAndLeavesNothingInTheCache) {
  Scheduler scheduler(small_config());
  Request request = request_of(8, 4);
  request.handle = 1;
  ASSERT_OK(scheduler.add(request));
  request = request_of(6, 4, 100);
  request.handle = 2;
  ASSERT_OK(scheduler.add(request));
  StepPlan plan;
  ASSERT_TRUE(scheduler.schedule(plan));
  const std::vector<int32_t> ids = {-1, 5};
  std::vector<TokenOutput> outputs;
  scheduler.finish_step(plan, ids.data(), nullptr, outputs);
  ASSERT_EQ(outputs.size(), 2u);
  EXPECT_EQ(outputs[0].finish, FinishReason::numerical_error);
  EXPECT_FALSE(outputs[0].has_token);
  EXPECT_EQ(outputs[1].finish, FinishReason::none);
  EXPECT_EQ(outputs[1].token_id, 5);
  EXPECT_EQ(scheduler.stats().running, 1);
  EXPECT_EQ(scheduler.stats().blocks_cached, 0);
  ASSERT_OK(scheduler.check_integrity());
}

TEST(SchedulerTest, CancelFreesBlocksInEveryState) {
  SchedulerConfig config = small_config();
  config.max_num_seqs = 2;
  Simulation sim(config, kModel);
  ASSERT_OK(sim.add(request_of(4, 20, 100)));
  ASSERT_OK(sim.step());
  ASSERT_OK(sim.add(request_of(40, 20, 200)));
  ASSERT_OK(sim.add(request_of(4, 20, 300)));
  ASSERT_OK(sim.step());
  for (RequestHandle handle : {1, 2, 3, 3, 99}) ASSERT_OK(sim.cancel(handle));  // decode, prefill, queue
  EXPECT_FALSE(sim.scheduler().has_work());
  EXPECT_EQ(sim.scheduler().stats().blocks_free, config.num_blocks);
  ASSERT_OK(sim.drain());
}

/// Thousands of requests, most of them cancelled in the queue, in prefill, or while they decode.
TEST(CancelStorm, SchedulerEndsWithEveryBlockFree) {
  for (const int max_plans : {1, 2}) {
    SchedulerConfig config = small_config();
    config.max_num_seqs = 8;
    config.num_blocks = 24;
    Simulation sim(config, kModel, max_plans);
    std::mt19937 random(7);
    const auto draw = [&random](int count) {
      return static_cast<int>(random() % static_cast<uint32_t>(count));
    };
    int num_cancels = 0;
    for (int i = 0; i < 3000; ++i) {
      Request request = request_of(1 + draw(40), 1 + draw(20), draw(3));
      request.prompt_group = draw(2) == 0 ? 0 : sim.last_handle() + 1;
      const int num_samples = request.prompt_group == 0 ? 1 : 3;
      for (int j = 0; j < num_samples; ++j) {
        request.sampling.sample_index = static_cast<uint32_t>(j);
        ASSERT_OK(sim.add(request));
      }
      // A request of the last few, running or waiting, or one that is over.
      for (int j = draw(4); j > 0; --j, ++num_cancels)
        ASSERT_OK(sim.cancel(1 + sim.last_handle() - std::min<uint64_t>(sim.last_handle(), 1 + draw(30))));
      for (int j = draw(5); j > 0; --j) ASSERT_OK(sim.step());
      if (sim.scheduler().stats().waiting > 100) ASSERT_OK(sim.drain());
    }
    ASSERT_OK(sim.drain());
    EXPECT_GT(num_cancels, 3000);
    EXPECT_GT(sim.scheduler().stats().preemptions, 10);
    EXPECT_EQ(sim.scheduler().stats().blocks_free, config.num_blocks);
  }
}

TEST(SchedulerTest, CancelWhileTheStepRunsGivesOneOutputAndNoToken) {
  Scheduler scheduler(small_config());
  Request request = request_of(4, 4);
  request.handle = 1;
  ASSERT_OK(scheduler.add(request));
  StepPlan plan;
  ASSERT_TRUE(scheduler.schedule(plan));
  EXPECT_TRUE(scheduler.cancel(1));
  EXPECT_FALSE(scheduler.cancel(1));
  const int32_t id = 3;
  std::vector<TokenOutput> outputs;
  scheduler.finish_step(plan, &id, nullptr, outputs);
  scheduler.take_finished(outputs);
  ASSERT_EQ(outputs.size(), 1u);
  EXPECT_EQ(outputs[0].finish, FinishReason::cancelled);
  EXPECT_FALSE(outputs[0].has_token);
  EXPECT_EQ(scheduler.stats().blocks_free, 64);
  ASSERT_OK(scheduler.check_integrity());
}

TEST(SchedulerTest, NextPlanMayBeScheduledBeforeTheTokensOfThisOneAreKnown) {
  Simulation sim(small_config(), kModel, /*max_plans=*/2);
  const ReferenceRun run = run_alone(kModel, request_of(6, 20));
  Request request = request_of(6, 20);
  request.stopping.stop_token_ids = {run.tokens[4]};
  ASSERT_OK(sim.add(request));
  ASSERT_OK(sim.add(request_of(6, 20, 50)));
  ASSERT_OK(sim.step());  // one plan is on its way
  ASSERT_OK(sim.step());
  EXPECT_THAT(sim.last_plan().token_ids, ElementsAre(kLastToken, kLastToken));
  ASSERT_OK(sim.drain());
  EXPECT_EQ(sim.record(1).tokens.size(), 5u);
}

TEST(SchedulerTest, IdleSchedulerHasNothingToRun) {
  Scheduler scheduler(small_config());
  StepPlan plan;
  EXPECT_FALSE(scheduler.has_work());
  EXPECT_FALSE(scheduler.schedule(plan));
}

}  // namespace
}  // namespace trireme
