// Every number of a request at the ends of its range.

#include <climits>
#include <cmath>
#include <functional>
#include <limits>

#include <gtest/gtest.h>

#include "tests/engine/base/request_limits_fixture.h"

namespace trireme {
namespace {

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

}  // namespace
}  // namespace trireme
