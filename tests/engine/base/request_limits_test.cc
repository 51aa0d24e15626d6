#include <cctype>
#include <limits>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/engine/base/request_limits_fixture.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;

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
