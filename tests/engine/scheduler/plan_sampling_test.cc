// What plans say of sampling and log probabilities, and what comes of the answers.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "engine/scheduler/scheduler.h"

namespace trireme {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

SchedulerConfig small_config() {
  SchedulerConfig config;
  config.max_num_seqs = 4;
  config.max_step_tokens = 8;
  config.max_context_len = 64;
  config.num_blocks = 32;
  config.block_size = 4;
  config.vocab_size = 50;
  return config;
}

Request request_of(RequestHandle handle, int32_t prompt_len, int32_t max_tokens) {
  Request request;
  request.handle = handle;
  request.prompt.resize(prompt_len);
  std::iota(request.prompt.begin(), request.prompt.end(), 10);
  request.stopping.max_tokens = max_tokens;
  return request;
}

/// Runs plans as a model would that always draws `next`, and whose logprobs tell where they come from: the
/// prompt's position, and of the top ones the place.
class PlanSamplingTest : public ::testing::Test {
 protected:
  /// One step. Its plan is plan_.
  std::vector<TokenOutput> step(int32_t next) {
    std::vector<TokenOutput> outputs;
    EXPECT_TRUE(scheduler_.schedule(plan_));
    const size_t sampled = plan_.sampling.size(), prompt = plan_.logprob_tokens.size();
    StepLogprobs more;
    fill(more.top_ids, more.top_logprobs, sampled);
    fill(more.prompt_top_ids, more.prompt_top_logprobs, prompt);
    for (size_t i = 0; i < prompt; ++i)
      more.prompt_logprobs.push_back(nan_ ? std::nanf("") : -static_cast<float>(plan_.logprob_targets[i]));
    const std::vector<int32_t> ids(sampled, next);
    const std::vector<float> logprobs(sampled, -0.5f);
    scheduler_.finish_step(plan_, ids.data(), logprobs.data(), outputs, &more);
    EXPECT_TRUE(scheduler_.check_integrity().ok());
    return outputs;
  }
  static void fill(std::vector<int32_t>& ids, std::vector<float>& logprobs, size_t rows) {
    for (size_t i = 0; i < rows * kMaxTopLogprobs; ++i) {
      ids.push_back(static_cast<int32_t>(i % kMaxTopLogprobs));
      logprobs.push_back(-static_cast<float>(i));
    }
  }

  Scheduler scheduler_{small_config()};
  StepPlan plan_;
  bool nan_ = false;
};

TEST_F(PlanSamplingTest, BiasesComeWithEveryRowAndBansUntilMinTokens) {
  Request request = request_of(1, 3, 5);
  request.sampling.logit_bias = {{4, 1.5f}, {2, -3}};
  request.stopping.stop_token_ids = {9, 7, 9};
  request.stopping.min_tokens = 2;
  ASSERT_TRUE(scheduler_.add(request).ok());
  ASSERT_TRUE(scheduler_.add(request_of(2, 2, 5)).ok());
  for (int32_t index = 0; index < 4; ++index) {
    step(1);
    ASSERT_EQ(plan_.num_sampled(), 2);
    EXPECT_EQ(plan_.sampling[0].num_biases, 2);
    EXPECT_EQ(plan_.sampling[1].num_biases, 0);
    EXPECT_THAT(plan_.bias_ids, ElementsAre(4, 2));
    EXPECT_THAT(plan_.biases, ElementsAre(1.5f, -3));
    EXPECT_EQ(plan_.sampling[0].num_banned, index < 2 ? 2 : 0);
    EXPECT_EQ(plan_.banned_ids, index < 2 ? std::vector<int32_t>({7, 9}) : std::vector<int32_t>());
  }
}

TEST_F(PlanSamplingTest, HistoryComesOnceAndAnewAfterResumption) {
  Request request = request_of(1, 10, 5);
  request.sampling.presence_penalty = 1;
  request.resumed_outputs = {3, 3};
  ASSERT_TRUE(scheduler_.add(request).ok());
  step(1);  // a first chunk of eight
  EXPECT_EQ(plan_.num_sampled(), 0);
  EXPECT_THAT(plan_.history_ids, IsEmpty());
  step(1);
  ASSERT_EQ(plan_.num_sampled(), 1);
  EXPECT_EQ(plan_.sampling[0].num_history_prompt, 10);
  EXPECT_EQ(plan_.sampling[0].num_history_output, 2);
  EXPECT_THAT(plan_.history_ids, ElementsAre(10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 3, 3));
  step(1);
  EXPECT_EQ(plan_.sampling[0].num_history_prompt, 0);
  EXPECT_THAT(plan_.history_ids, IsEmpty());
}

TEST_F(PlanSamplingTest, HistoryComesAgainAfterPreemption) {
  SchedulerConfig config = small_config();
  config.num_blocks = 7;  // for 28 tokens
  config.enable_prefix_cache = false;
  Scheduler scheduler(config);
  Request first = request_of(1, 7, 13), second = request_of(2, 7, 13);
  second.sampling.frequency_penalty = 1;
  ASSERT_TRUE(scheduler.add(first).ok());
  ASSERT_TRUE(scheduler.add(second).ok());
  int histories = 0;
  std::vector<int32_t> outputs_of_second;
  while (scheduler.has_work()) {
    StepPlan plan;
    ASSERT_TRUE(scheduler.schedule(plan));
    if (!plan.history_ids.empty()) {
      ++histories;
      std::vector<int32_t> wanted = second.prompt;
      wanted.insert(wanted.end(), outputs_of_second.begin(), outputs_of_second.end());
      EXPECT_EQ(plan.history_ids, wanted);
    }
    std::vector<int32_t> ids;
    for (size_t i = 0; i < plan.sampling.size(); ++i) ids.push_back(static_cast<int32_t>(plan.step % 50));
    std::vector<TokenOutput> outputs;
    scheduler.finish_step(plan, ids.data(), nullptr, outputs);
    for (const TokenOutput& output : outputs) {
      if (output.handle == 2) outputs_of_second.push_back(output.token_id);
    }
  }
  EXPECT_GT(scheduler.stats().preemptions, 0);
  EXPECT_EQ(histories, 1 + scheduler.stats().preemptions);
}

TEST_F(PlanSamplingTest, PromptLogprobsCoverEachPositionOnceInAnyChunks) {
  Request request = request_of(1, 19, 3);
  request.output.num_prompt_logprobs = 2;
  ASSERT_TRUE(scheduler_.add(request).ok());
  int32_t position = 0;
  std::vector<TokenOutput> outputs;
  while (outputs.empty()) {
    const int32_t before = position;
    outputs = step(1);
    for (size_t i = 0; i < plan_.logprob_tokens.size(); ++i, ++position) {
      EXPECT_EQ(plan_.logprob_tokens[i], position - before);
      EXPECT_EQ(plan_.logprob_targets[i], request.prompt[position + 1]);
      EXPECT_EQ(plan_.logprob_tops[i], 2);
    }
  }
  EXPECT_EQ(position, 18);
  ASSERT_NE(outputs[0].prompt_logprobs(), nullptr);
  const PromptLogprobs& logprobs = *outputs[0].prompt_logprobs();
  ASSERT_EQ(logprobs.logprobs.size(), 18u);
  for (size_t i = 0; i < 18; ++i) EXPECT_EQ(logprobs.logprobs[i], -static_cast<float>(request.prompt[i + 1]));
  ASSERT_EQ(logprobs.top.size(), 36u);
  EXPECT_EQ(logprobs.top[35].token_id, 1);
  outputs = step(1);
  EXPECT_EQ(outputs[0].prompt_logprobs(), nullptr);
  EXPECT_THAT(plan_.logprob_tokens, IsEmpty());
}

TEST_F(PlanSamplingTest, OnePromptTokenHasNoLogprobs) {
  Request request = request_of(1, 1, 2);
  request.output.num_prompt_logprobs = 0;
  ASSERT_TRUE(scheduler_.add(request).ok());
  const auto outputs = step(1);
  ASSERT_NE(outputs[0].prompt_logprobs(), nullptr);
  EXPECT_THAT(outputs[0].prompt_logprobs()->logprobs, IsEmpty());
}

TEST_F(PlanSamplingTest, WantedPromptLogitsAreComputedThoughTheirPrefixIsCached) {
  ASSERT_TRUE(scheduler_.add(request_of(1, 17, 1)).ok());
  while (scheduler_.has_work()) step(1);
  Request cached = request_of(2, 17, 1), wanting = request_of(3, 17, 1);
  ASSERT_TRUE(scheduler_.add(cached).ok());
  auto outputs = step(1);
  EXPECT_EQ(outputs.at(0).num_cached_tokens, 16);
  wanting.output.num_prompt_logprobs = 0;
  ASSERT_TRUE(scheduler_.add(wanting).ok());
  do outputs = step(1);
  while (outputs.empty());
  EXPECT_EQ(outputs[0].num_cached_tokens, 0);
  EXPECT_EQ(outputs[0].prompt_logprobs()->logprobs.size(), 16u);
}

TEST_F(PlanSamplingTest, ALogprobThatIsNoNumberEndsTheRequest) {
  Request request = request_of(1, 19, 3);
  request.output.num_prompt_logprobs = 0;
  ASSERT_TRUE(scheduler_.add(request).ok());
  nan_ = true;
  const auto outputs = step(1);
  ASSERT_EQ(outputs.size(), 1u);
  EXPECT_EQ(outputs[0].finish, FinishReason::numerical_error);
  EXPECT_FALSE(outputs[0].has_token);
  EXPECT_FALSE(scheduler_.has_work());
}

TEST_F(PlanSamplingTest, TopLogprobsAreThoseAskedFor) {
  Request with = request_of(1, 2, 2), without = request_of(2, 2, 2);
  with.output.num_top_logprobs = 3;
  ASSERT_TRUE(scheduler_.add(without).ok());
  ASSERT_TRUE(scheduler_.add(with).ok());
  const auto outputs = step(1);
  EXPECT_THAT(outputs.at(0).top_logprobs(), IsEmpty());
  ASSERT_EQ(outputs.at(1).top_logprobs().size(), 3u);
  EXPECT_EQ(outputs[1].top_logprobs()[2].token_id, 2);
  EXPECT_EQ(outputs[1].top_logprobs()[2].logprob, -22);  // row 1, place 2
}

TEST_F(PlanSamplingTest, WhatNoPlanCouldCarryIsRefused) {
  const auto refusal = [&](auto change) {
    Request request = request_of(1, 3, 5);
    change(request);
    const absl::Status status = scheduler_.add(request);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_THAT(refusal([](Request& r) {
                r.sampling.logit_bias = {{50, 1.0f}};
              }),
              HasSubstr("bias id: got 50"));
  EXPECT_THAT(refusal([](Request& r) { r.sampling.logit_bias = {{-1, 1.0f}}; }), HasSubstr("got -1"));
  EXPECT_THAT(refusal([](Request& r) {
                r.sampling.logit_bias = {{3, std::nanf("")}};
              }),
              HasSubstr("logit_bias[3]: got nan"));
  EXPECT_THAT(refusal([](Request& r) {
                for (int32_t i = 0; i < 65; ++i) r.sampling.logit_bias.push_back({i % 50, 1.0f});
              }),
              HasSubstr("num_biases: got 65"));
  EXPECT_THAT(refusal([](Request& r) { r.sampling.repetition_penalty = 0; }),
              HasSubstr("repetition_penalty"));
  EXPECT_THAT(refusal([](Request& r) { r.stopping.stop_token_ids = {50}; }),
              HasSubstr("stop token id: got 50"));
  EXPECT_THAT(refusal([](Request& r) {
                r.stopping.min_tokens = 1;
                for (int32_t i = 0; i < 50; ++i) r.stopping.stop_token_ids.push_back(i);
              }),
              HasSubstr("every token of the vocabulary stops"));
  EXPECT_THAT(refusal([](Request& r) { r.output.num_top_logprobs = 21; }), HasSubstr("num_top_logprobs"));
  EXPECT_THAT(refusal([](Request& r) { r.output.num_prompt_logprobs = 21; }), HasSubstr("-1 to 20"));
}

}  // namespace
}  // namespace trireme
