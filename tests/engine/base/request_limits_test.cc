#include "engine/base/request_limits.h"

#include <climits>
#include <cmath>
#include <functional>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace trireme {
namespace {

using ::testing::HasSubstr;

constexpr int32_t kVocab = 1000;
constexpr int32_t kContext = 64;

RequestFields good() {
  RequestFields request;
  request.token_ids = {1, 2, 3, 4};
  return request;
}

RequestLimits limits() {
  RequestLimits result;
  result.vocab_size = kVocab;
  result.max_context_len = kContext;
  return result;
}

/// The field of the violation; empty when there is none.
std::string violated(const RequestFields& request, const RequestLimits& with = limits()) {
  const auto bad = validate(request, with);
  return bad ? bad->field : "";
}

struct IntCase {
  std::string field;
  std::function<void(RequestFields&, int32_t)> set;
  int64_t low, high;
};

struct FloatCase {
  std::string field;
  std::function<void(RequestFields&, float)> set;
  float low, high;
  bool low_excluded = false;
};

class IntBoundaryTest : public ::testing::TestWithParam<IntCase> {};
class FloatBoundaryTest : public ::testing::TestWithParam<FloatCase> {};

TEST_P(IntBoundaryTest, TakesExactlyItsRange) {
  const IntCase& c = GetParam();
  const auto outcome = [&](int64_t value) {
    RequestFields request = good();
    c.set(request, static_cast<int32_t>(value));
    return violated(request);
  };
  EXPECT_EQ(outcome(c.low), "");
  EXPECT_EQ(outcome(c.high), "");
  EXPECT_EQ(outcome(c.low - 1), c.field);
  EXPECT_EQ(outcome(INT_MIN), c.field);
  if (c.high < INT_MAX) {
    EXPECT_EQ(outcome(c.high + 1), c.field);
    EXPECT_EQ(outcome(INT_MAX), c.field);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Fields, IntBoundaryTest,
    ::testing::Values(
        IntCase{"sampling.top_k", [](RequestFields& r, int32_t v) { r.top_k = v; }, 0, INT_MAX},
        // Four prompt tokens of a context of 64.
        IntCase{"stopping.max_tokens", [](RequestFields& r, int32_t v) { r.max_tokens = v; }, 1, 60},
        IntCase{"stopping.min_tokens", [](RequestFields& r, int32_t v) { r.min_tokens = v; }, 0, 60},
        IntCase{"stopping.min_tokens",
                [](RequestFields& r, int32_t v) {
                  r.max_tokens = 7;
                  r.min_tokens = v;
                },
                0, 7},
        IntCase{"output.n", [](RequestFields& r, int32_t v) { r.n = v; }, 1, 8},
        IntCase{"output.logprobs", [](RequestFields& r, int32_t v) { r.logprobs = v; }, 0, 20},
        IntCase{"output.prompt_logprobs", [](RequestFields& r, int32_t v) { r.prompt_logprobs = v; }, 0, 20},
        IntCase{"token_ids.ids[2]", [](RequestFields& r, int32_t v) { r.token_ids[2] = v; }, 0, kVocab - 1},
        IntCase{"stopping.stop_token_ids[1]",
                [](RequestFields& r, int32_t v) {
                  r.stop_token_ids = {5, v};
                },
                0, kVocab - 1}));

TEST_P(FloatBoundaryTest, TakesExactlyItsRange) {
  const FloatCase& c = GetParam();
  const auto outcome = [&](float value) {
    RequestFields request = good();
    c.set(request, value);
    return violated(request);
  };
  constexpr float kInf = std::numeric_limits<float>::infinity();
  EXPECT_EQ(outcome(c.high), "");
  EXPECT_EQ(outcome(std::nextafter(c.high, kInf)), c.field);
  EXPECT_EQ(outcome(c.low), c.low_excluded ? c.field : "");
  EXPECT_EQ(outcome(std::nextafter(c.low, kInf)), "");
  EXPECT_EQ(outcome(std::nextafter(c.low, -kInf)), c.field);
  // Minus zero is zero.
  EXPECT_EQ(outcome(-0.0f), outcome(0.0f));
  for (const float never :
       {kInf, -kInf, std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::quiet_NaN(),
        std::numeric_limits<float>::max(), std::numeric_limits<float>::lowest()})
    EXPECT_EQ(outcome(never), c.field) << never;
}

INSTANTIATE_TEST_SUITE_P(
    Fields, FloatBoundaryTest,
    ::testing::Values(FloatCase{"sampling.temperature", [](RequestFields& r, float v) { r.temperature = v; },
                                0, 100},
                      FloatCase{"sampling.top_p", [](RequestFields& r, float v) { r.top_p = v; }, 0, 1, true},
                      FloatCase{"sampling.min_p", [](RequestFields& r, float v) { r.min_p = v; }, 0, 1},
                      FloatCase{"sampling.repetition_penalty",
                                [](RequestFields& r, float v) { r.repetition_penalty = v; }, 0, 10, true},
                      FloatCase{"sampling.presence_penalty",
                                [](RequestFields& r, float v) { r.presence_penalty = v; }, -2, 2},
                      FloatCase{"sampling.frequency_penalty",
                                [](RequestFields& r, float v) { r.frequency_penalty = v; }, -2, 2}));

TEST(RequestLimitsTest, TakesEveryFieldAtOnce) {
  RequestFields request = good();
  request.request_id = "chat:7.A_b-c";
  request.temperature = 0.7f;
  request.top_p = 0.9f;
  request.max_tokens = 10;
  request.min_tokens = 10;
  request.n = 2;
  request.stop = {"\n\n", "END"};
  request.stop_token_ids = {7};
  request.logit_bias = {{7, -100.0f}};
  request.resume = {{0, {1, 2}, false}, {1, {}, true}};
  EXPECT_EQ(violated(request), "");
}

TEST(RequestLimitsTest, RequestIdIsShortAndPlain) {
  const auto outcome = [](const std::string& id) {
    RequestFields request = good();
    request.request_id = id;
    return violated(request);
  };
  EXPECT_EQ(outcome(""), "");  // the server chooses one
  EXPECT_EQ(outcome("azAZ09._:-"), "");
  EXPECT_EQ(outcome(std::string(128, 'x')), "");
  EXPECT_EQ(outcome(std::string(129, 'x')), "request_id");
  for (int c = 0; c < 256; ++c) {
    const bool allowed =
        std::string("._:-").find(static_cast<char>(c)) != std::string::npos || (c < 128 && std::isalnum(c));
    EXPECT_EQ(outcome(std::string("a") + static_cast<char>(c)), allowed ? "" : "request_id") << c;
  }
}

TEST(RequestLimitsTest, PromptIsNeverEmpty) {
  RequestFields request;
  EXPECT_EQ(violated(request), "prompt");
  request.has_text = true;
  EXPECT_EQ(violated(request), "text");
  request.text = "x";
  EXPECT_EQ(violated(request), "");
}

TEST(RequestLimitsTest, PromptBytesAreBoundedBeforeTokenizing) {
  RequestFields request;
  request.has_text = true;
  request.text = std::string(1 << 20, 'x');
  EXPECT_EQ(violated(request), "");
  request.text += 'x';
  EXPECT_EQ(violated(request), "text");
}

TEST(RequestLimitsTest, PromptTokensAreBoundedWithoutAKnownContext) {
  RequestFields request;
  request.token_ids.assign(1 << 20, 0);
  EXPECT_EQ(violated(request, RequestLimits{}), "");
  request.token_ids.push_back(0);
  EXPECT_EQ(violated(request, RequestLimits{}), "token_ids");
}

TEST(RequestLimitsTest, ContextHasRoomForOneOutputToken) {
  RequestFields request;
  request.token_ids.assign(kContext - 1, 1);
  EXPECT_EQ(violated(request), "");
  request.max_tokens = 1;
  EXPECT_EQ(violated(request), "");
  request.max_tokens = 2;  // the prompt alone fits, so the length asked for is what is wrong
  EXPECT_EQ(violated(request), "stopping.max_tokens");
  request.max_tokens.reset();
  request.token_ids.push_back(1);
  EXPECT_EQ(violated(request), "token_ids");
}

TEST(RequestLimitsTest, TokenizedTextIsNamedAsText) {
  RequestFields request;
  request.has_text = true;
  request.text = "hello";
  request.max_tokens = kContext - 1;  // text that is not tokenized yet counts as one token
  EXPECT_EQ(violated(request), "");
  request.max_tokens = kContext;
  EXPECT_EQ(violated(request), "stopping.max_tokens");
  request.token_ids.assign(kContext, 1);
  request.max_tokens.reset();
  EXPECT_EQ(violated(request), "text");
}

TEST(RequestLimitsTest, UnknownModelLeavesOnlyWhatCanBeKnown) {
  RequestFields request = good();
  request.token_ids = {INT_MAX};
  request.max_tokens = INT_MAX;
  EXPECT_EQ(violated(request, RequestLimits{}), "");
  request.token_ids = {-1};
  EXPECT_EQ(violated(request, RequestLimits{}), "token_ids.ids[0]");
}

TEST(RequestLimitsTest, StopStringsAreFewAndShort) {
  RequestFields request = good();
  request.stop = {"a", "b", "c", "d"};
  EXPECT_EQ(violated(request), "");
  request.stop.push_back("e");
  EXPECT_EQ(violated(request), "stopping.stop");
  request.stop = {"a", std::string(64, 'x')};
  EXPECT_EQ(violated(request), "");
  request.stop = {"a", std::string(65, 'x')};
  EXPECT_EQ(violated(request), "stopping.stop[1]");
  request.stop = {""};
  EXPECT_EQ(violated(request), "stopping.stop[0]");
}

TEST(RequestLimitsTest, ListsAreBounded) {
  RequestFields request = good();
  request.stop_token_ids.assign(64, 1);
  EXPECT_EQ(violated(request), "");
  request.stop_token_ids.push_back(1);
  EXPECT_EQ(violated(request), "stopping.stop_token_ids");

  request = good();
  for (int id = 0; id < 64; ++id) request.logit_bias.emplace_back(id, 1.0f);
  EXPECT_EQ(violated(request), "");
  request.logit_bias.emplace_back(64, 1.0f);
  EXPECT_EQ(violated(request), "sampling.logit_bias");

  request = good();
  request.resume = {{0, {}, false}};
  EXPECT_EQ(violated(request), "");
  request.resume.push_back({1, {}, false});
  EXPECT_EQ(violated(request), "resume");
  request.n = 2;
  EXPECT_EQ(violated(request), "");
}

TEST(RequestLimitsTest, ResumeStatesAreOnePerSampleAndOfTheVocabulary) {
  RequestFields request = good();
  request.n = 3;
  request.resume = {{2, {1, 2}, true}, {0, {kVocab - 1}, false}};
  EXPECT_EQ(violated(request), "");
  request.resume[1].token_ids = {0, 1, 2, kVocab};
  EXPECT_EQ(violated(request), "resume[1].token_ids[3]");
  request.resume[1].token_ids = {-1};
  EXPECT_EQ(violated(request), "resume[1].token_ids[0]");
  request.resume[1].token_ids = {};
  for (const int32_t wrong : {-1, 2, 3}) {
    request.resume[1].index = wrong;
    EXPECT_EQ(violated(request), "resume[1].index") << wrong;
  }
}

TEST(RequestLimitsTest, ResumedTokensFitMaxTokensAndContext) {
  RequestFields request = good();
  request.resume = {{0, std::vector<int32_t>(kContext - 4, 1), false}};
  EXPECT_EQ(violated(request), "");
  request.resume[0].token_ids.push_back(1);
  EXPECT_EQ(violated(request), "resume[0].token_ids");
  request.max_tokens = 3;
  request.resume[0].token_ids.resize(3);
  EXPECT_EQ(violated(request), "");
  request.resume[0].token_ids.resize(4);
  EXPECT_EQ(violated(request), "resume[0].token_ids");
  RequestLimits unknown = limits();
  unknown.max_context_len = 0;
  unknown.max_prompt_bytes = 10;
  request.max_tokens.reset();
  request.resume[0].token_ids.resize(10);
  EXPECT_EQ(violated(request, unknown), "");
  request.resume[0].token_ids.resize(11);
  EXPECT_EQ(violated(request, unknown), "resume[0].token_ids");
}

TEST(RequestLimitsTest, LogitBiasIsFiniteAndOfTheVocabulary) {
  const auto outcome = [](int32_t id, float bias) {
    RequestFields request = good();
    request.logit_bias = {{id, bias}};
    return violated(request);
  };
  EXPECT_EQ(outcome(0, -0.0f), "");
  EXPECT_EQ(outcome(kVocab - 1, -1e30f), "");
  EXPECT_EQ(outcome(kVocab, 1), "sampling.logit_bias[1000]");
  EXPECT_EQ(outcome(-1, 1), "sampling.logit_bias[-1]");
  EXPECT_EQ(outcome(1, std::numeric_limits<float>::infinity()), "sampling.logit_bias[1]");
  EXPECT_EQ(outcome(1, std::numeric_limits<float>::quiet_NaN()), "sampling.logit_bias[1]");
}

TEST(RequestLimitsTest, PromptLogprobsFitIntoOneMessage) {
  RequestLimits small = limits();
  small.max_prompt_logprob_entries = 84;
  RequestFields request = good();  // four tokens
  request.prompt_logprobs = 20;
  EXPECT_EQ(violated(request, small), "");
  small.max_prompt_logprob_entries = 83;
  EXPECT_EQ(violated(request, small), "output.prompt_logprobs");
  EXPECT_THAT(validate(request, small)->description,
              HasSubstr("20 for 4 tokens, which gives 84 entries; at most 83"));
  request.prompt_logprobs.reset();
  EXPECT_EQ(violated(request, small), "");
  // A text is one token until it is tokenized.
  request = RequestFields();
  request.has_text = true;
  request.text = "abcd";
  request.prompt_logprobs = 20;
  EXPECT_EQ(violated(request, small), "");
  request.token_ids = {1, 2, 3, 4};
  EXPECT_EQ(violated(request, small), "output.prompt_logprobs");
}

TEST(RequestLimitsTest, TheLargestPromptDoesNotOverflow) {
  RequestFields request;
  request.token_ids.assign(1 << 20, 0);
  request.prompt_logprobs = 20;
  EXPECT_EQ(violated(request, RequestLimits{}), "output.prompt_logprobs");
}

TEST(RequestLimitsTest, MinTokensNeedsATokenThatDoesNotStop) {
  RequestLimits small = limits();
  small.vocab_size = 8;
  RequestFields request = good();
  for (int32_t id = 0; id < 7; ++id) request.stop_token_ids.push_back(id);
  request.stop_token_ids.push_back(3);
  request.min_tokens = 1;
  EXPECT_EQ(violated(request, small), "");
  request.stop_token_ids.push_back(7);
  EXPECT_EQ(violated(request, small), "stopping.min_tokens");
  request.min_tokens = 0;
  EXPECT_EQ(violated(request, small), "");
}

TEST(RequestLimitsTest, EveryOptionMovesOneLimitAndHoldsItsDefault) {
  RequestLimits moved;
  for (const RequestLimitOption& option : request_limit_options()) {
    EXPECT_EQ(moved.*option.limit, RequestLimits{}.*option.limit) << option.flag << " moves another's limit";
    moved.*option.limit = -1;
    EXPECT_GE(RequestLimits{}.*option.limit, option.least) << option.flag;
    EXPECT_LE(RequestLimits{}.*option.limit, option.most) << option.flag;
  }
  RequestFields request = good();
  request.n = 9;
  request.stop = {"a", "b", "c", "d", "e"};
  RequestLimits wide = limits();
  wide.max_n = 16;
  EXPECT_EQ(violated(request, wide), "stopping.stop");
  wide.max_stop_strings = 5;
  EXPECT_EQ(violated(request, wide), "");
}

TEST(RequestLimitsTest, DescriptionSaysGotAndWantedButNoText) {
  RequestFields request = good();
  request.n = 9;
  EXPECT_THAT(validate(request, limits())->description, HasSubstr("9; wanted at most 8"));
  request = good();
  request.max_tokens = 100;
  EXPECT_THAT(validate(request, limits())->description,
              HasSubstr("100; the context of 64 tokens leaves at most 60"));
  request = good();
  request.request_id = "CANARY\n";
  EXPECT_THAT(validate(request, limits())->description, HasSubstr("byte 6 is 0x0a"));
  EXPECT_THAT(validate(request, limits())->description, ::testing::Not(HasSubstr("CANARY")));
}

}  // namespace
}  // namespace trireme
