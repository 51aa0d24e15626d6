#include "engine/scheduler/step_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <iterator>
#include <limits>
#include <random>

namespace trireme {
namespace {

using testing::HasSubstr;

constexpr StepPlanLimits kLimits{.max_num_seqs = 4,
                                 .max_num_tokens = 16,
                                 .max_context_len = 40,
                                 .block_size = 8,
                                 .num_blocks = 10,
                                 .vocab_size = 100};

// A decode, a prefill chunk that is not sampled, a last chunk that is, and padding.
StepPlan example() {
  StepPlan plan;
  plan.step = 0x123456789abcdef0;
  plan.slots = {2, 0, 3, -1};
  plan.query_lens = {1, 4, 3, 1};
  plan.context_lens = {17, 8, 3, 1};
  plan.num_blocks = {3, 1, 1, 1};
  plan.block_tables = {9, 0, 4, 5, 6, 7};
  plan.token_ids = {kLastToken, 1, 2, 3, 99, 0, 5, 6, 0};
  plan.sample = {1, 0, 1, 0};
  plan.sampling = {{0.5f, 40, 0.9f, 0.05f, 0xfedcba9876543210, 1, 16}, {0, 0, 1, 0, 3, 0, 0}};
  // The decode has biases and top logprobs, the last chunk penalties and bans; the first chunk is of a
  // request that wants prompt logprobs.
  plan.sampling[0].num_biases = 2;
  plan.sampling[0].num_top_logprobs = 20;
  plan.bias_ids = {0, 99};
  plan.biases = {1.5f, -100};
  plan.sampling[1].repetition_penalty = 1.25f;
  plan.sampling[1].presence_penalty = -2;
  plan.sampling[1].frequency_penalty = 0.5f;
  plan.sampling[1].num_banned = 1;
  plan.sampling[1].num_history_prompt = 2;
  plan.sampling[1].num_history_output = 1;
  plan.banned_ids = {7};
  plan.history_ids = {0, 5, 6};
  plan.logprob_tokens = {1, 2, 4};
  plan.logprob_targets = {2, 3, 98};
  plan.logprob_tops = {0, 0, 20};
  return plan;
}

absl::Status send(const StepPlan& plan, StepPlan& received) {
  std::vector<int32_t> words;
  pack(plan, words);
  return unpack(words.data(), words.size(), kLimits, received);
}

void expect_equal(const StepPlan& a, const StepPlan& b) {
  std::vector<int32_t> words_a, words_b;
  pack(a, words_a);
  pack(b, words_b);
  EXPECT_EQ(words_a, words_b);
}

TEST(StepPlanTest, ArrivesAsItWasSent) {
  const StepPlan plan = example();
  StepPlan received;
  ASSERT_TRUE(send(plan, received).ok()) << send(plan, received);
  EXPECT_EQ(received.kind, StepPlan::Kind::kRun);
  EXPECT_EQ(received.step, plan.step);
  EXPECT_EQ(received.slots, plan.slots);
  EXPECT_EQ(received.query_lens, plan.query_lens);
  EXPECT_EQ(received.context_lens, plan.context_lens);
  EXPECT_EQ(received.num_blocks, plan.num_blocks);
  EXPECT_EQ(received.block_tables, plan.block_tables);
  EXPECT_EQ(received.token_ids, plan.token_ids);
  EXPECT_EQ(received.sample, plan.sample);
  ASSERT_EQ(received.num_sampled(), 2);
  EXPECT_EQ(received.sampling[0].temperature, 0.5f);
  EXPECT_EQ(received.sampling[0].top_k, 40);
  EXPECT_EQ(received.sampling[0].top_p, 0.9f);
  EXPECT_EQ(received.sampling[0].min_p, 0.05f);
  EXPECT_EQ(received.sampling[0].seed, 0xfedcba9876543210);
  EXPECT_EQ(received.sampling[0].sample_index, 1u);
  EXPECT_EQ(received.sampling[0].output_index, 16u);
  EXPECT_EQ(received.sampling[1].seed, 3u);
  EXPECT_EQ(received.sampling[0].num_biases, 2);
  EXPECT_EQ(received.sampling[0].num_top_logprobs, 20);
  EXPECT_EQ(received.sampling[1].repetition_penalty, 1.25f);
  EXPECT_EQ(received.sampling[1].presence_penalty, -2);
  EXPECT_EQ(received.sampling[1].frequency_penalty, 0.5f);
  EXPECT_EQ(received.sampling[1].num_history_prompt, 2);
  EXPECT_EQ(received.sampling[1].num_history_output, 1);
  EXPECT_EQ(received.bias_ids, plan.bias_ids);
  EXPECT_EQ(received.biases, plan.biases);
  EXPECT_EQ(received.banned_ids, plan.banned_ids);
  EXPECT_EQ(received.history_ids, plan.history_ids);
  EXPECT_EQ(received.logprob_tokens, plan.logprob_tokens);
  EXPECT_EQ(received.logprob_targets, plan.logprob_targets);
  EXPECT_EQ(received.logprob_tops, plan.logprob_tops);
}

TEST(StepPlanTest, IdleAndStopPlansAreEmpty) {
  for (StepPlan::Kind kind :
       {StepPlan::Kind::kIdle, StepPlan::Kind::kStop, StepPlan::Kind::kReport, StepPlan::Kind::kTrace}) {
    StepPlan plan, received = example();
    plan.kind = kind;
    plan.step = 5;
    ASSERT_TRUE(send(plan, received).ok());
    expect_equal(plan, received);
    plan = example();
    plan.kind = kind;
    EXPECT_THAT(send(plan, received).message(), HasSubstr("num_seqs: got 4, wanted in [0, 0]"));
  }
  StepPlan empty, received;
  EXPECT_THAT(send(empty, received).message(), HasSubstr("num_seqs: got 0"));
}

TEST(StepPlanTest, WhatTheLeaderDidBeforeArrivesWithEveryKind) {
  StepPlan idle, received = example();
  idle.kind = StepPlan::Kind::kIdle;
  for (const StepPlan& sent : {example(), idle}) {
    for (const bool after_idle : {true, false}) {
      StepPlan plan = sent;
      plan.after_idle = after_idle;
      ASSERT_TRUE(send(plan, received).ok());
      EXPECT_EQ(received.after_idle, after_idle);
      EXPECT_EQ(received.kind, plan.kind);
    }
  }
}

struct Spoiled {
  const char* message;
  void (*spoil)(StepPlan&);
};

TEST(StepPlanTest, EveryNumberIsCheckedAndNamed) {
  const Spoiled cases[] = {
      {"kind: got 7", [](StepPlan& p) { p.kind = static_cast<StepPlan::Kind>(7); }},
      {"kind: got 0", [](StepPlan& p) { p.kind = static_cast<StepPlan::Kind>(0); }},
      {"num_seqs: got 5",
       [](StepPlan& p) {
         for (auto* a : {&p.slots, &p.query_lens, &p.context_lens, &p.num_blocks, &p.sample}) a->push_back(0);
       }},
      {"num_tokens: got 17, wanted in [1, 16]", [](StepPlan& p) { p.token_ids.resize(17); }},
      {"num_table_blocks: got 21, wanted in [1, 20]", [](StepPlan& p) { p.block_tables.resize(21); }},
      {"num_sampled: got 5", [](StepPlan& p) { p.sampling.resize(5); }},
      {"slots[0]: got 4, wanted in [-1, 3]", [](StepPlan& p) { p.slots[0] = 4; }},
      {"slots[0]: got -2", [](StepPlan& p) { p.slots[0] = -2; }},
      {"slots[2]: got 2, wanted another than slots[0]", [](StepPlan& p) { p.slots[2] = 2; }},
      {"context_lens[1]: got 41, wanted in [1, 40]", [](StepPlan& p) { p.context_lens[1] = 41; }},
      {"context_lens[1]: got 0", [](StepPlan& p) { p.context_lens[1] = 0; }},
      {"query_lens[2]: got 4, wanted in [1, 3]", [](StepPlan& p) { p.query_lens[2] = 4; }},
      {"query_lens[1]: got 0", [](StepPlan& p) { p.query_lens[1] = 0; }},
      {"query_lens[1]: got -4", [](StepPlan& p) { p.query_lens[1] = -4; }},
      {"num_blocks[0]: got 2, wanted in [3, 5]", [](StepPlan& p) { p.num_blocks[0] = 2; }},
      {"num_blocks[0]: got 6", [](StepPlan& p) { p.num_blocks[0] = 6; }},
      {"sample[1]: got 2", [](StepPlan& p) { p.sample[1] = 2; }},
      {"sample[3]: got 1, wanted in [0, 0]", [](StepPlan& p) { p.sample[3] = 1; }},
      {"sum of num_blocks: got 7, wanted 6", [](StepPlan& p) { p.num_blocks[1] = 2; }},
      {"sum of query_lens: got 8, wanted 9", [](StepPlan& p) { p.query_lens[1] = 3; }},
      {"sum of sample: got 1, wanted 2", [](StepPlan& p) { p.sample[0] = 0; }},
      {"block_tables[3]: got 10, wanted in [0, 9]", [](StepPlan& p) { p.block_tables[3] = 10; }},
      {"block_tables[3]: got -1", [](StepPlan& p) { p.block_tables[3] = -1; }},
      {"token_ids[4]: got 100, wanted in [0, 99]", [](StepPlan& p) { p.token_ids[4] = 100; }},
      {"token_ids[0]: got -2, wanted in [-1, 99]", [](StepPlan& p) { p.token_ids[0] = -2; }},
      {"token_ids[2]: got -1, wanted in [0, 99]", [](StepPlan& p) { p.token_ids[2] = -1; }},
      {"token_ids[8]: got -1, wanted in [0, 99]", [](StepPlan& p) { p.token_ids[8] = -1; }},
      {"sampling[0]: temperature: got -0.1", [](StepPlan& p) { p.sampling[0].temperature = -0.1f; }},
      {"sampling[1]: temperature: got nan", [](StepPlan& p) { p.sampling[1].temperature = std::nanf(""); }},
      {"sampling[0]: temperature: got inf", [](StepPlan& p) { p.sampling[0].temperature = HUGE_VALF; }},
      {"sampling[0]: top_k: got -1", [](StepPlan& p) { p.sampling[0].top_k = -1; }},
      {"sampling[0]: top_p: got 0", [](StepPlan& p) { p.sampling[0].top_p = 0; }},
      {"sampling[0]: top_p: got 1.5", [](StepPlan& p) { p.sampling[0].top_p = 1.5f; }},
      {"sampling[1]: min_p: got nan", [](StepPlan& p) { p.sampling[1].min_p = std::nanf(""); }},
      {"repetition_penalty: got 0", [](StepPlan& p) { p.sampling[1].repetition_penalty = 0; }},
      {"repetition_penalty: got nan", [](StepPlan& p) { p.sampling[1].repetition_penalty = std::nanf(""); }},
      {"repetition_penalty: got inf", [](StepPlan& p) { p.sampling[1].repetition_penalty = HUGE_VALF; }},
      {"presence_penalty: got nan", [](StepPlan& p) { p.sampling[0].presence_penalty = std::nanf(""); }},
      {"frequency_penalty: got -inf", [](StepPlan& p) { p.sampling[0].frequency_penalty = -HUGE_VALF; }},
      {"sampling[0]: num_biases: got 65, wanted in [0, 64]",
       [](StepPlan& p) { p.sampling[0].num_biases = 65; }},
      {"sampling[0]: num_biases: got -1", [](StepPlan& p) { p.sampling[0].num_biases = -1; }},
      {"sampling[0]: num_banned: got 257, wanted in [0, 256]",
       [](StepPlan& p) { p.sampling[0].num_banned = 257; }},
      {"num_history_prompt: got -1", [](StepPlan& p) { p.sampling[1].num_history_prompt = -1; }},
      {"history of sampling[1]: got 2147483648, wanted in [0, 40]",
       [](StepPlan& p) { p.sampling[1].num_history_prompt = INT32_MAX; }},
      {"num_top_logprobs: got 21, wanted in [0, 20]",
       [](StepPlan& p) { p.sampling[0].num_top_logprobs = 21; }},
      {"sum of num_biases: got 1, wanted 2", [](StepPlan& p) { p.sampling[0].num_biases = 1; }},
      {"sum of num_banned: got 0, wanted 1", [](StepPlan& p) { p.sampling[1].num_banned = 0; }},
      {"sum of num_history: got 4, wanted 3", [](StepPlan& p) { p.sampling[1].num_history_output = 2; }},
      {"num_biases: got 129, wanted in [0, 128]",
       [](StepPlan& p) {
         p.bias_ids.resize(129);
         p.biases.resize(129);
       }},
      {"num_banned: got 513, wanted in [0, 512]", [](StepPlan& p) { p.banned_ids.resize(513); }},
      {"num_history: got 81, wanted in [0, 80]", [](StepPlan& p) { p.history_ids.resize(81); }},
      {"bias_ids[1]: got 100, wanted in [0, 99]", [](StepPlan& p) { p.bias_ids[1] = 100; }},
      {"biases[0]: got inf", [](StepPlan& p) { p.biases[0] = HUGE_VALF; }},
      {"banned_ids[0]: got -1", [](StepPlan& p) { p.banned_ids[0] = -1; }},
      {"history_ids[2]: got 100", [](StepPlan& p) { p.history_ids[2] = 100; }},
      {"logprob_targets[0]: got -1", [](StepPlan& p) { p.logprob_targets[0] = -1; }},
      {"logprob_tops[1]: got 21, wanted in [0, 20]", [](StepPlan& p) { p.logprob_tops[1] = 21; }},
      {"logprob_tokens[2]: got 9, wanted in [0, 8]", [](StepPlan& p) { p.logprob_tokens[2] = 9; }},
      {"logprob_tokens[1]: got 1, wanted more than 1", [](StepPlan& p) { p.logprob_tokens[1] = 1; }},
  };
  for (const Spoiled& c : cases) {
    StepPlan plan = example(), received;
    c.spoil(plan);
    const absl::Status status = send(plan, received);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.message;
    EXPECT_THAT(status.message(), HasSubstr(c.message));
  }
}

TEST(StepPlanTest, HeaderIsChecked) {
  std::vector<int32_t> words;
  pack(example(), words);
  StepPlan received;
  for (size_t word : {0u, 1u}) {  // magic, version
    std::vector<int32_t> other = words;
    ++other[word];
    EXPECT_FALSE(unpack(other.data(), other.size(), kLimits, received).ok());
  }
  EXPECT_THAT(unpack(nullptr, 0, kLimits, received).message(), HasSubstr("words: got 0, wanted at least 13"));
}

TEST(StepPlanTest, EveryOtherLengthIsRefused) {
  std::vector<int32_t> words;
  pack(example(), words);
  StepPlan received;
  for (size_t n = 0; n < words.size(); ++n) {
    // A copy of just that size, so that a read past the end is one past an allocation.
    const std::vector<int32_t> cut(words.begin(), words.begin() + n);
    EXPECT_FALSE(unpack(cut.data(), cut.size(), kLimits, received).ok()) << n;
  }
  words.push_back(0);
  EXPECT_FALSE(unpack(words.data(), words.size(), kLimits, received).ok());
}

TEST(StepPlanTest, AnyWordsAreRefusedOrGiveAPlanThatIsSafe) {
  std::mt19937 random(1);
  std::vector<int32_t> words;
  pack(example(), words);
  int accepted = 0;
  for (int i = 0; i < 50000; ++i) {
    std::vector<int32_t> spoiled = words;
    for (int n = 1 + random() % 3; n > 0; --n) {
      const int32_t values[] = {0,
                                1,
                                -1,
                                2,
                                5,
                                8,
                                std::numeric_limits<int32_t>::min(),
                                std::numeric_limits<int32_t>::max(),
                                static_cast<int32_t>(random())};
      spoiled[random() % spoiled.size()] = values[random() % std::size(values)];
    }
    StepPlan plan;
    if (!unpack(spoiled.data(), spoiled.size(), kLimits, plan).ok()) continue;
    ++accepted;
    std::vector<int32_t> again;
    pack(plan, again);
    ASSERT_EQ(again, spoiled);
  }
  EXPECT_GT(accepted, 500);  // else only the header was tried
}

TEST(StepPlanTest, PackingAgainTakesNoNewMemory) {
  std::vector<int32_t> words;
  pack(example(), words);
  const int32_t* before = words.data();
  pack(example(), words);
  EXPECT_EQ(words.data(), before);
}

}  // namespace
}  // namespace trireme
