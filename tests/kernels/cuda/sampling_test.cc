// Drawing tokens with the CUDA backend's kernel, run on the processor, against a sorted list in double.

#include "kernels/cuda/sampling.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <set>

#include "kernels/cpu/philox.h"
#include "tests/kernels/cuda/device_tensor.h"
#include "tests/simt/grid.h"

namespace trireme::testing {
namespace {

struct Drawn {
  std::vector<int32_t> ids;
  std::vector<float> logprobs;
};

/// Rows with their own lists, as a step plan has them.
struct SamplingProblem {
  int64_t vocab_size = 0;
  std::vector<float> logits;  // [rows.size(), vocab_size]
  std::vector<SamplingRow> rows;
  std::vector<int32_t> bias_ids, banned_ids, counts;  // counts: one row for all
  std::vector<float> biases;

  Drawn run() const {
    const int64_t num_rows = static_cast<int64_t>(rows.size());
    const DeviceTensor device_logits(DType::f32, num_rows, vocab_size, logits),
        edited(DType::f32, num_rows, vocab_size);
    std::vector<int32_t> words(rows.size() * sizeof(SamplingRow) / sizeof(int32_t)), first_bias, first_banned;
    std::memcpy(words.data(), rows.data(), rows.size() * sizeof(SamplingRow));
    int32_t bias = 0, banned = 0;
    for (const SamplingRow& row : rows) {
      first_bias.push_back(std::exchange(bias, bias + row.num_biases));
      first_banned.push_back(std::exchange(banned, banned + row.num_banned));
    }
    const auto padded = [](std::vector<int32_t> values) {
      return values.empty() ? std::vector<int32_t>{-1} : values;
    };
    std::vector<int32_t> bias_words(biases.size());
    if (!biases.empty()) std::memcpy(bias_words.data(), biases.data(), biases.size() * sizeof(float));
    const DeviceTensor device_rows(words), device_first_bias(first_bias), device_first_banned(first_banned),
        device_bias_ids(padded(bias_ids)), device_biases(padded(bias_words)),
        device_banned(padded(banned_ids)), device_counts(padded(counts)),
        slots(std::vector<int32_t>(rows.size(), 0)), ids(std::vector<int32_t>(rows.size(), -7)),
        logprobs(DType::f32, 1, num_rows);
    cuda::SamplingInputs in;
    in.logits = device_logits;
    in.vocab_size = vocab_size;
    in.rows = device_rows.tensor().as<const SamplingRow>();
    in.first_bias = device_first_bias.tensor().as<int32_t>();
    in.first_banned = device_first_banned.tensor().as<int32_t>();
    in.bias_ids = device_bias_ids.tensor().as<int32_t>();
    in.biases = device_biases.tensor().as<float>();
    in.banned_ids = device_banned.tensor().as<int32_t>();
    in.token_counts = device_counts;
    in.slots = slots.tensor().as<int32_t>();
    in.edited = edited.tensor().as<float>();
    cuda::sample(nullptr, in, ids, logprobs);
    Drawn drawn;
    drawn.logprobs = logprobs.values();
    const std::vector<float> bits = ids.values();  // as words
    drawn.ids.resize(bits.size());
    std::memcpy(drawn.ids.data(), bits.data(), bits.size() * sizeof(float));
    return drawn;
  }
};

/// Ids that a draw may give, by sorting in double: that of the row's own random number, and its neighbours
/// where that number falls within `slack` of a border.
std::set<int32_t> possible_ids(const std::vector<float>& logits, const SamplingRow& row,
                               double slack = 4e-6) {
  const int count = static_cast<int>(logits.size());
  std::vector<double> weights;
  const double maximum = *std::max_element(logits.begin(), logits.end());
  for (const float x : logits) weights.push_back(std::exp((x - maximum) / row.temperature));
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<int> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return weights[a] > weights[b]; });
  std::vector<char> kept(logits.size());
  double sum = 0;
  for (int place = 0; place < count; ++place) {
    if (row.top_k > 0 && place >= row.top_k) break;
    if (row.top_p < 1 && sum >= row.top_p * total) break;
    if (weights[order[place]] < row.min_p) break;
    kept[order[place]] = 1;
    sum += weights[order[place]];
  }
  const double target = cpu::sampling_uniform(row.seed, row.sample_index, row.output_index) * sum;
  std::set<int32_t> ids;
  double before = 0;
  for (int id = 0; id < count; ++id) {
    if (!kept[id]) continue;
    if (target >= before - slack * sum && target < before + weights[id] + slack * sum) ids.insert(id);
    before += weights[id];
  }
  return ids;
}

class CudaSamplingTest : public ::testing::TestWithParam<simt::Order> {
 protected:
  void SetUp() override { simt::set_options({GetParam(), random_(), 0}); }
  void TearDown() override { simt::set_options({}); }

  SamplingProblem problem(int64_t vocab_size, const std::vector<SamplingRow>& rows, float scale = 2) {
    SamplingProblem result;
    result.vocab_size = vocab_size;
    result.rows = rows;
    result.logits = random_values(random_, vocab_size * static_cast<int64_t>(rows.size()), scale);
    return result;
  }
  static std::vector<float> row_of(const SamplingProblem& p, size_t row) {
    const auto begin = p.logits.begin() + static_cast<int64_t>(row) * p.vocab_size;
    return {begin, begin + p.vocab_size};
  }
  SamplingRow row(float temperature, int32_t top_k = 0, float top_p = 1, float min_p = 0) {
    SamplingRow result;
    result.temperature = temperature;
    result.top_k = top_k;
    result.top_p = top_p;
    result.min_p = min_p;
    result.seed = random_();
    result.output_index = static_cast<uint32_t>(random_() % 100);
    return result;
  }

  std::mt19937 random_{std::random_device{}()};
};

TEST_P(CudaSamplingTest, GreedyTakesTheLowestOfTheLargest) {
  for (const int64_t vocab_size : {1, 5, 512, 1000, 2049}) {
    SamplingProblem p = problem(vocab_size, {row(0), row(0)});
    if (vocab_size > 700) p.logits[700] = p.logits[300] = 50;
    const Drawn drawn = p.run();
    for (size_t r = 0; r < 2; ++r) {
      const std::vector<float> x = row_of(p, r);
      EXPECT_EQ(drawn.ids[r], std::max_element(x.begin(), x.end()) - x.begin());
      double sum = 0;
      for (const float value : x) sum += std::exp(double{value});
      EXPECT_NEAR(drawn.logprobs[r], x[static_cast<size_t>(drawn.ids[r])] - std::log(sum), 1e-5);
    }
  }
}

TEST_P(CudaSamplingTest, FiltersKeepAPrefixOfTheOrder) {
  std::vector<SamplingRow> rows = {row(1),           row(0.7f),          row(1, 1),
                                   row(1, 40),       row(1, 5, 0.9f),    row(1, 0, 0.9f),
                                   row(1, 0, 0.01f), row(1, 0, 1, 0.1f), row(2, 100, 0.8f, 0.02f)};
  for (const int64_t vocab_size : {3, 600, 3000}) {
    const SamplingProblem p = problem(vocab_size, rows);
    const Drawn drawn = p.run();
    for (size_t r = 0; r < rows.size(); ++r)
      EXPECT_TRUE(possible_ids(row_of(p, r), rows[r]).count(drawn.ids[r])) << vocab_size << ", row " << r;
  }
}

TEST_P(CudaSamplingTest, OfEqualTokensTheFirstAreKept) {
  SamplingProblem p = problem(1200, std::vector<SamplingRow>(40, SamplingRow{}));
  std::fill(p.logits.begin(), p.logits.end(), 1.0f);
  for (size_t r = 0; r < 40; ++r) {
    p.rows[r] = r % 2 == 0 ? row(1, 7) : row(1, 0, 0.01f);  // 1 % of 1200 are 12
  }
  const Drawn drawn = p.run();
  std::set<int32_t> by_count, by_mass;
  for (size_t r = 0; r < 40; ++r) (r % 2 == 0 ? by_count : by_mass).insert(drawn.ids[r]);
  EXPECT_LT(*by_count.rbegin(), 7);
  EXPECT_LT(*by_mass.rbegin(), 12);
  EXPECT_GT(by_count.size(), 2u);
}

TEST_P(CudaSamplingTest, DrawsFollowTheDistribution) {
  // 400 draws of five tokens: each count within five standard deviations.
  SamplingProblem p;
  p.vocab_size = 5;
  const std::vector<double> probabilities = {0.4, 0.3, 0.15, 0.1, 0.05};
  for (int i = 0; i < 400; ++i) {
    p.rows.push_back(row(1));
    for (const double probability : probabilities)
      p.logits.push_back(static_cast<float>(std::log(probability)));
  }
  std::vector<int> counts(5);
  for (const int32_t id : p.run().ids) ++counts[static_cast<size_t>(id)];
  for (size_t i = 0; i < 5; ++i) {
    const double deviation = std::sqrt(400 * probabilities[i] * (1 - probabilities[i]));
    EXPECT_NEAR(counts[i], 400 * probabilities[i], 5 * deviation) << i;
  }
}

TEST_P(CudaSamplingTest, EditsChangeTheChoiceButNotTheLogprob) {
  SamplingRow edited = row(0);
  edited.repetition_penalty = 2;
  edited.presence_penalty = 0.5f;
  edited.frequency_penalty = 0.25f;
  edited.num_biases = 2;
  edited.num_banned = 1;
  SamplingProblem p;
  p.vocab_size = 6;
  p.rows = {row(0), edited};
  p.logits = {1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6};
  p.bias_ids = {0, 2};
  p.biases = {2, 1};
  p.banned_ids = {5};
  p.counts = {0, 0, 0, 1, 4, 0};  // 3 is in the prompt, 4 twice in the output
  // 3, 2, 4, 4 / 2, 5 / 2 - 2 * 0.25 - 0.5, banned
  const Drawn drawn = p.run();
  EXPECT_EQ(drawn.ids, (std::vector<int32_t>{5, 2}));
  EXPECT_NEAR(drawn.logprobs[1], drawn.logprobs[0] - 3, 1e-5);
}

TEST_P(CudaSamplingTest, NaNAndNothingToChooseGiveNone) {
  SamplingProblem p = problem(700, {row(0), row(1), row(0)});
  p.logits[500] = std::numeric_limits<float>::quiet_NaN();
  std::fill(p.logits.begin() + 700, p.logits.begin() + 1400, -std::numeric_limits<float>::infinity());
  const Drawn drawn = p.run();
  EXPECT_EQ(drawn.ids[0], -1);
  EXPECT_EQ(drawn.ids[1], -1);
  EXPECT_GE(drawn.ids[2], 0);
  EXPECT_TRUE(std::isnan(drawn.logprobs[0]) && std::isnan(drawn.logprobs[1]));
}

TEST_P(CudaSamplingTest, ARowsDrawDoesNotDependOnItsBatch) {
  const SamplingProblem all = problem(900, {row(1, 50, 0.9f), row(0.5f), row(1.5f, 0, 0.7f)});
  const Drawn together = all.run();
  for (size_t r = 0; r < 3; ++r) {
    SamplingProblem one = all;
    one.rows = {all.rows[r]};
    one.logits = row_of(all, r);
    const Drawn alone = one.run();
    EXPECT_EQ(alone.ids[0], together.ids[r]);
    EXPECT_EQ(alone.logprobs[0], together.logprobs[r]);
  }
}

std::string order_name(const ::testing::TestParamInfo<simt::Order>& order) {
  constexpr const char* kNames[] = {"forward", "reverse", "shuffled", "eager"};
  return kNames[static_cast<int>(order.param)];
}

INSTANTIATE_TEST_SUITE_P(CudaOnCpu, CudaSamplingTest, ::testing::ValuesIn(simt::kOrders), order_name);

}  // namespace
}  // namespace trireme::testing
