#include <algorithm>
#include <fstream>
#include <numeric>

#include <nlohmann/json.hpp>

#include "tests/kernels/backend_fixture.h"

namespace trireme::testing {
namespace {

constexpr int32_t kUntouched = -7;

struct Logprobs {
  std::vector<float> targets;
  std::vector<int32_t> ids;   // [rows][columns]
  std::vector<float> values;  // [rows][columns]
};

class LogprobsTest : public BackendTest {
 protected:
  Logprobs logprobs(const std::vector<float>& logits, int64_t cols, int64_t vocab,
                    const std::vector<int32_t>& targets, const std::vector<int32_t>& num_top,
                    int64_t columns) {
    const int64_t rows = static_cast<int64_t>(targets.size());
    const DeviceMatrix in = upload_f32(logits, rows, cols, 1), of_targets = empty_f32(1, rows);
    const DeviceMatrix ids = upload_ints(targets, 1, rows), values = empty_f32(rows, columns);
    const DeviceMatrix top = upload_ints(std::vector<int32_t>(rows * columns, kUntouched), rows, columns);
    const Buffer on_device = upload_bytes(num_top);
    backend().logprobs(in.tensor(), vocab, static_cast<const int32_t*>(on_device.data()), ids.tensor(),
                       of_targets.tensor(), top.tensor(), values.tensor());
    return {of_targets.floats(), top.ints(), values.floats()};
  }
};
TRIREME_INSTANTIATE_BACKENDS_OF_ONE_DTYPE(LogprobsTest);

double naive_logprob(const float* x, int64_t vocab, int64_t id) {
  double sum = 0;
  for (int64_t i = 0; i < vocab; ++i) sum += std::exp(static_cast<double>(x[i]) - x[id]);
  return -std::log(sum);
}

TEST_P(LogprobsTest, EqualTransformersLogSoftmax) {
  const auto file = nlohmann::json::parse(
      std::ifstream(std::string(TRIREME_TEST_DATA) + "/references/sampling_references.json"));
  for (const auto& c : file.at("cases")) {
    const auto logits = c.at("logits").get<std::vector<float>>();
    const auto wanted = c.at("log_softmax").get<std::vector<double>>();
    const int64_t vocab = static_cast<int64_t>(logits.size());
    for (int32_t id = 0; id < vocab; ++id)
      EXPECT_NEAR(logprobs(logits, vocab, vocab, {id}, {0}, 1).targets[0], wanted[id], 1e-5);
  }
}

TEST_P(LogprobsTest, TopEqualsAFullSortAtEverySize) {
  for (const int64_t vocab :
       sizes<int64_t>({1, 3, 19, 20, 21, 255, 256, 257, 600, 5121, 40000}, {1, 3, 20, 21, 511, 513, 5121})) {
    for (const float spread : {0.0f, 3.0f}) {  // 0: all are equal
      auto logits = normal_values(2 * vocab, 7, spread);
      if (vocab > 100)
        logits[90] = logits[vocab - 1] = logits[40] = 20;  // equals are taken from the lowest id
      const std::vector<int32_t> num_top = {20, 5};
      const Logprobs got = logprobs(logits, vocab, vocab, {0, static_cast<int32_t>(vocab - 1)}, num_top, 20);
      for (int64_t r = 0; r < 2; ++r) {
        const float* x = &logits[r * vocab];
        std::vector<int32_t> order(vocab);
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return x[a] > x[b]; });
        EXPECT_NEAR(got.targets[r], naive_logprob(x, vocab, r == 0 ? 0 : vocab - 1), 1e-5);
        for (int64_t i = 0; i < 20; ++i) {
          const int32_t id = got.ids[r * 20 + i];
          if (i >= num_top[r]) {
            EXPECT_EQ(id, kUntouched);
          } else if (i >= vocab) {
            EXPECT_EQ(id, -1);
          } else {
            ASSERT_EQ(id, order[i]) << "vocab " << vocab << ", row " << r << ", place " << i;
            EXPECT_NEAR(got.values[r * 20 + i], naive_logprob(x, vocab, id), 1e-5);
          }
        }
      }
    }
  }
}

TEST_P(LogprobsTest, HasTheBitsOfTheSampledLogprob) {
  const int64_t vocab = 3000;
  const auto logits = normal_values(6 * vocab, 3, 2);
  std::vector<SamplingRow> rows;
  for (uint32_t i = 0; i < 6; ++i) rows.push_back({i == 0 ? 0.0f : 1.0f, 0, 1, 0, 9, 0, i});
  const DeviceMatrix in = upload_f32(logits, 6, vocab), sampled = empty_f32(1, 6);
  const DeviceMatrix ids = upload_ints(std::vector<int32_t>(6), 1, 6);
  const Buffer on_device = upload_bytes(rows);
  backend().sample(in.tensor(), vocab, static_cast<const SamplingRow*>(on_device.data()), ids.tensor(),
                   sampled.tensor());
  const Logprobs got = logprobs(logits, vocab, vocab, ids.ints(), std::vector<int32_t>(6, 1), 1);
  expect_same_bits(got.targets, sampled.floats(), "target");
  EXPECT_EQ(got.ids[0], ids.ints()[0]);  // the greedy one is the most likely one
  expect_same_bits({got.values[0]}, {got.targets[0]}, "the most likely");
}

TEST_P(LogprobsTest, ARowDoesNotDependOnItsNeighbours) {
  const int64_t vocab = 1000;
  const auto logits = normal_values(9 * vocab, 4, 2);
  std::vector<int32_t> targets, num_top;
  for (int32_t i = 0; i < 9; ++i) {
    targets.push_back(100 * i);
    num_top.push_back(2 * i);
  }
  const Logprobs all = logprobs(logits, vocab, vocab, targets, num_top, 20);
  for (int64_t r = 0; r < 9; ++r) {
    const Logprobs one = logprobs(rows_of(logits, vocab, r, 1), vocab, vocab, {targets[r]}, {num_top[r]}, 20);
    expect_same_bits(one.targets, {all.targets[r]}, "target");
    const auto top = [&](const auto& values, int64_t row) {
      return std::vector(values.begin() + row * 20, values.begin() + row * 20 + num_top[r]);
    };
    EXPECT_EQ(top(one.ids, 0), top(all.ids, r));
    expect_same_bits(top(one.values, 0), top(all.values, r), "top");
  }
}

TEST_P(LogprobsTest, PaddingColumnsAndMissingTargetsDoNotCount) {
  std::vector<float> logits(70, 100.0f);
  std::fill(logits.begin(), logits.begin() + 50, 0.0f);
  logits[60] = std::nanf("");
  const Logprobs got = logprobs(logits, 70, 50, {-1}, {3}, 3);
  EXPECT_TRUE(std::isnan(got.targets[0]));
  EXPECT_THAT(got.ids, ::testing::ElementsAre(0, 1, 2));
  for (const float value : got.values) EXPECT_NEAR(value, -std::log(50.0), 1e-5);
}

TEST_P(LogprobsTest, ARowWithoutASoftmaxHasNone) {
  auto logits = normal_values(2 * 30, 1);
  logits[29] = std::nanf("");
  const Logprobs got = logprobs(logits, 30, 30, {3, 3}, {2, 2}, 2);
  EXPECT_TRUE(std::isnan(got.targets[0]));
  EXPECT_EQ(got.ids[0], -1);
  EXPECT_TRUE(std::isnan(got.values[1]));
  EXPECT_FALSE(std::isnan(got.targets[1]));
  EXPECT_GE(got.ids[2], 0);
}

}  // namespace
}  // namespace trireme::testing
