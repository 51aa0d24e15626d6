#include "engine/scheduler/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/engine/scheduler/scheduler_fixture.h"

namespace trireme {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

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

TEST(SchedulerTest, WhoWaitsAndHowManyCouldJoinIsTold) {
  SchedulerConfig config = small_config();
  config.max_num_seqs = 4;
  config.num_blocks = 16;
  Simulation sim(config, kModel);
  const auto waiting = [&] {
    std::vector<RequestHandle> handles;
    sim.scheduler().list_waiting(handles);
    return handles;
  };
  EXPECT_EQ(sim.scheduler().stats().free_slots, 4);
  ASSERT_OK(sim.add(request_of(40, 10, 100)));
  EXPECT_THAT(waiting(), ElementsAre(1));
  for (int i = 0; i < 3; ++i) ASSERT_OK(sim.step());
  EXPECT_THAT(waiting(), ElementsAre());
  EXPECT_EQ(sim.scheduler().stats().free_slots, 3);
  ASSERT_OK(sim.add(request_of(40, 2, 200)));
  Request urgent = request_of(40, 2, 300);
  urgent.priority = -1;
  ASSERT_OK(sim.add(urgent));
  EXPECT_THAT(waiting(), ElementsAre(3, 2));
  EXPECT_EQ(sim.scheduler().stats().free_slots, 3) << "until a step has looked for blocks";
  ASSERT_OK(sim.step());
  EXPECT_THAT(waiting(), ElementsAre(3, 2));
  EXPECT_EQ(sim.scheduler().stats().free_slots, 0);
  ASSERT_OK(sim.drain());
  EXPECT_EQ(sim.scheduler().stats().free_slots, 4);
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

}  // namespace
}  // namespace trireme
