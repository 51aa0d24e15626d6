// Where a sequence begins in the middle, and how it ends.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "tests/engine/scheduler/scheduler_fixture.h"

namespace trireme {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(SchedulerEndingsTest, ResumedAtEveryCutItGivesTheTokensOfAnUnbrokenRun) {
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

TEST(SchedulerEndingsTest, ResumedOutputsMustBeIdsAndLeaveATokenToProduce) {
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

TEST(SchedulerEndingsTest, HandleInUseIsRefused) {
  Scheduler scheduler(small_config());
  ASSERT_OK(scheduler.add(request_of(4, 4)));
  EXPECT_EQ(scheduler.add(request_of(4, 4)).code(), absl::StatusCode::kAlreadyExists);
}

TEST(SchedulerEndingsTest, StopTokenStopsOnlyFromMinTokensOn) {
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

TEST(SchedulerEndingsTest, NumericalErrorEndsThatRequestAloneAndLeavesNothingInTheCache) {
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

TEST(SchedulerEndingsTest, CancelFreesBlocksInEveryState) {
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

TEST(SchedulerEndingsTest, CancelWhileTheStepRunsGivesOneOutputAndNoToken) {
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

TEST(SchedulerEndingsTest, NextPlanMayBeScheduledBeforeTheTokensOfThisOneAreKnown) {
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

TEST(SchedulerEndingsTest, IdleSchedulerHasNothingToRun) {
  Scheduler scheduler(small_config());
  StepPlan plan;
  EXPECT_FALSE(scheduler.has_work());
  EXPECT_FALSE(scheduler.schedule(plan));
}

}  // namespace
}  // namespace trireme
