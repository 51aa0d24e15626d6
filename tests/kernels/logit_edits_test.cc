// Biases, penalties and bans: against transformers (references/) and against plain loops.

#include <algorithm>
#include <fstream>
#include <limits>
#include <numeric>

#include <nlohmann/json.hpp>

#include "kernels/cpu/philox.h"
#include "tests/kernels/backend_fixture.h"

namespace trireme::testing {
namespace {

constexpr float kMost = std::numeric_limits<float>::max();

/// One row with everything it refers to.
struct EditedRow {
  SamplingRow row;
  std::vector<float> logits;
  std::vector<int32_t> prompt, output, banned, bias_ids;
  std::vector<float> biases;

  void settle() {
    row.num_biases = static_cast<int32_t>(bias_ids.size());
    row.num_banned = static_cast<int32_t>(banned.size());
  }
};

/// Steps 1 to 4 of SamplingRow as they are written there.
std::vector<float> naive_edit(const EditedRow& r) {
  std::vector<float> x = r.logits;
  for (size_t i = 0; i < r.bias_ids.size(); ++i)
    x[r.bias_ids[i]] = std::clamp(x[r.bias_ids[i]] + r.biases[i], -kMost, kMost);
  for (size_t id = 0; id < x.size(); ++id) {
    const auto times = [&](const std::vector<int32_t>& ids) {
      return static_cast<float>(std::count(ids.begin(), ids.end(), static_cast<int32_t>(id)));
    };
    const float in_output = times(r.output);
    if (times(r.prompt) + in_output > 0)
      x[id] = x[id] > 0 ? x[id] / r.row.repetition_penalty : x[id] * r.row.repetition_penalty;
    if (in_output > 0) x[id] -= in_output * r.row.frequency_penalty + r.row.presence_penalty;
    x[id] = std::clamp(x[id], -kMost, kMost);
  }
  for (const int32_t id : r.banned) x[id] = -std::numeric_limits<float>::infinity();
  return x;
}

std::vector<double> softmax(const std::vector<float>& x, double temperature) {
  const double maximum = *std::max_element(x.begin(), x.end());
  std::vector<double> p;
  for (const float value : x) p.push_back(std::exp((value - maximum) / temperature));
  const double total = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& value : p) value /= total;
  return p;
}

int32_t draw(const std::vector<double>& p, double u) {
  double sum = 0;
  int32_t last = -1;
  for (size_t id = 0; id < p.size(); ++id) {
    if (p[id] == 0) continue;
    last = static_cast<int32_t>(id);
    sum += p[id];
    if (sum > u) break;
  }
  return last;
}

/// Sums differ in the last bits: who lies that near to u is right, too.
bool may_be_drawn(const std::vector<double>& p, double u, int32_t id) {
  constexpr double kSlack = 5e-6;
  if (id < 0) return false;
  const double before = std::accumulate(p.begin(), p.begin() + id, 0.0);
  return p[static_cast<size_t>(id)] > 0 && before <= u + kSlack &&
         before + p[static_cast<size_t>(id)] >= u - kSlack;
}

class LogitEditsTest : public BackendTest {
 protected:
  struct Drawn {
    std::vector<int32_t> ids;
    std::vector<float> logprobs;
  };

  /// All rows in one call; each has a slot of its own, in falling order.
  Drawn sample(const std::vector<EditedRow>& rows) {
    const int64_t count = static_cast<int64_t>(rows.size());
    const int64_t vocab = static_cast<int64_t>(rows[0].logits.size());
    std::vector<float> logits, biases;
    std::vector<int32_t> bias_ids, banned, slots, first_bias, first_banned;
    std::vector<SamplingRow> sampling;
    const DeviceMatrix counts = upload_ints(std::vector<int32_t>(count * vocab, 77), count, vocab);
    const auto append = [](auto& all, const auto& some) { all.insert(all.end(), some.begin(), some.end()); };
    for (const EditedRow& r : rows) {
      const int32_t slot = static_cast<int32_t>(count) - 1 - static_cast<int32_t>(slots.size());
      first_bias.push_back(static_cast<int32_t>(bias_ids.size()));
      first_banned.push_back(static_cast<int32_t>(banned.size()));
      append(logits, r.logits);
      append(biases, r.biases);
      append(bias_ids, r.bias_ids);
      append(banned, r.banned);
      sampling.push_back(r.row);
      slots.push_back(slot);
      backend().set_token_counts(counts.tensor(), slot, r.prompt.data(),
                                 static_cast<int64_t>(r.prompt.size()), r.output.data(),
                                 static_cast<int64_t>(r.output.size()));
    }
    const DeviceMatrix in = upload_f32(logits, count, vocab, 2), logprobs = empty_f32(1, count);
    const DeviceMatrix ids = upload_ints(std::vector<int32_t>(rows.size(), -7), 1, count);
    const auto data = [](const Buffer& buffer) { return static_cast<const int32_t*>(buffer.data()); };
    const Buffer b = upload_bytes(bias_ids), c = upload_bytes(biases), d = upload_bytes(banned);
    const Buffer s = upload_bytes(slots), f = upload_bytes(first_bias), g = upload_bytes(first_banned);
    const Buffer on_device = upload_bytes(sampling);
    const SamplingLists lists{data(f), data(g),         data(b), static_cast<const float*>(c.data()),
                              data(d), counts.tensor(), data(s)};
    backend().sample(in.tensor(), vocab, static_cast<const SamplingRow*>(on_device.data()), ids.tensor(),
                     logprobs.tensor(), lists);
    expect_same_bits(in.floats(), logits, "the logits stay");
    return {ids.ints(), logprobs.floats()};
  }

  /// Draws with many random numbers, and greedily, against the distribution they must follow.
  void expect_draws(EditedRow r, const std::vector<double>& p, const std::string& what) {
    r.settle();
    std::vector<EditedRow> rows(65, r);
    for (uint32_t i = 0; i < 64; ++i) rows[i].row.output_index = i;
    rows[64].row.temperature = 0;
    const Drawn drawn = sample(rows);
    for (uint32_t i = 0; i < 64; ++i) {
      const double u = cpu::sampling_uniform(r.row.seed, r.row.sample_index, i);
      EXPECT_TRUE(may_be_drawn(p, u, drawn.ids[i]))
          << what << ", draw " << i << ": got " << drawn.ids[i] << ", wanted " << draw(p, u);
    }
    EXPECT_EQ(drawn.ids[64], std::max_element(p.begin(), p.end()) - p.begin()) << what;
    const std::vector<double> unmodified = softmax(r.logits, 1);
    for (size_t i = 0; i < rows.size(); ++i)
      EXPECT_NEAR(drawn.logprobs[i], std::log(unmodified[drawn.ids[i]]), 1e-5) << what;
  }
};
TRIREME_INSTANTIATE_BACKENDS_OF_ONE_DTYPE(LogitEditsTest);

TEST_P(LogitEditsTest, DrawsFollowTransformersProcessors) {
  const auto file = nlohmann::json::parse(
      std::ifstream(std::string(TRIREME_TEST_DATA) + "/references/sampling_references.json"));
  ASSERT_GE(file.at("cases").size(), 12u);
  for (const auto& c : file.at("cases")) {
    EditedRow r;
    c.at("logits").get_to(r.logits);
    c.at("prompt_ids").get_to(r.prompt);
    c.at("output_ids").get_to(r.output);
    r.row.temperature = c.at("temperature");
    r.row.top_k = c.value("top_k", 0);
    r.row.top_p = c.value("top_p", 1.0f);
    r.row.min_p = c.value("min_p", 0.0f);
    r.row.seed = 11;
    r.row.repetition_penalty = c.value("repetition_penalty", 1.0f);
    r.row.presence_penalty = c.value("presence_penalty", 0.0f);
    r.row.frequency_penalty = c.value("frequency_penalty", 0.0f);
    r.banned = c.value("stop_ids", std::vector<int32_t>{});
    const nlohmann::json biases = c.value("logit_bias", nlohmann::json::object());
    for (const auto& [id, bias] : biases.items()) {
      r.bias_ids.push_back(std::stoi(id));
      r.biases.push_back(bias);
    }
    nlohmann::json parameters = c;
    for (const char* key : {"logits", "prompt_ids", "output_ids", "log_softmax", "probabilities"})
      parameters.erase(key);
    expect_draws(r, c.at("probabilities").get<std::vector<double>>(), parameters.dump());
  }
}

/// Ids drawn below a bound, some of them often.
std::vector<int32_t> random_ids(std::mt19937& random, int count, int64_t below) {
  std::vector<int32_t> ids;
  for (int i = 0; i < count; ++i) ids.push_back(static_cast<int32_t>(random() % below));
  return ids;
}

TEST_P(LogitEditsTest, DrawsEqualPlainLoopsAtEverySize) {
  std::mt19937 random(5);
  for (const int64_t vocab : sizes<int64_t>({1, 2, 7, 16, 33, 255, 500, 3001}, {1, 600})) {
    for (const float repetition : {1.0f, 0.5f, 1.7f}) {
      for (const float presence : {0.0f, -1.5f, 2.0f}) {
        for (const float frequency : sizes<float>({0.0f, 0.3f, -0.4f}, {-0.4f})) {
          EditedRow r;
          r.logits = normal_values(vocab, static_cast<uint32_t>(random()), 3);
          r.row = {0.8f, 0, 1, 0, random(), 2, 0, repetition, presence, frequency};
          r.prompt = random_ids(random, 12, vocab);
          r.output = random_ids(random, 9, std::min<int64_t>(vocab, 6));
          if (vocab > 2) {
            r.bias_ids = {1, static_cast<int32_t>(vocab - 1)};
            r.biases = {2.5f, -1.25f};
            r.banned = {0};
          }
          expect_draws(r, softmax(naive_edit(r), r.row.temperature),
                       "vocab " + std::to_string(vocab) + ", penalties " + std::to_string(repetition) + " " +
                           std::to_string(presence) + " " + std::to_string(frequency));
        }
      }
    }
  }
}

TEST_P(LogitEditsTest, WhatWouldOverflowStaysFinite) {
  EditedRow r;
  r.logits = {1, 2, -3, 0, 5};
  r.bias_ids = {0, 2};
  r.biases = {kMost, -kMost};
  r.prompt = {0, 1, 2, 3};
  r.row.repetition_penalty = 1e-44f;  // ids 0 and 1 overflow: the lowest of the equals wins
  r.settle();
  EXPECT_EQ(sample({r}).ids[0], 0);
  r.row.repetition_penalty = 10;  // id 2 overflows downwards
  r.row.temperature = 1;
  EXPECT_EQ(sample({r}).ids[0], 0);
  r.biases = {-kMost, -kMost};
  r.banned = {1, 3, 4};  // the two that are left are as unlikely as can be, and equal
  r.row.repetition_penalty = 1;
  r.settle();
  for (uint32_t i = 0; i < 8; ++i) {
    r.row.output_index = i;
    EXPECT_THAT(sample({r}).ids[0], ::testing::AnyOf(0, 2));
  }
}

TEST_P(LogitEditsTest, InfiniteLogitsAreNeverEditedIntoFiniteOnes) {
  EditedRow r;
  r.logits = {-INFINITY, 0, -INFINITY, -INFINITY};
  r.bias_ids = {0};
  r.biases = {100};
  r.output = {2};
  r.row.temperature = 1;
  r.row.presence_penalty = -2;
  r.settle();
  for (uint32_t i = 0; i < 8; ++i) {
    r.row.output_index = i;
    EXPECT_EQ(sample({r}).ids[0], 1);
  }
}

TEST_P(LogitEditsTest, WithEveryIdBannedThereIsNoToken) {
  EditedRow r;
  r.logits = {1, 2, 3};
  r.banned = {0, 1, 2};
  r.settle();
  for (const float temperature : {0.0f, 1.0f}) {
    r.row.temperature = temperature;
    const Drawn drawn = sample({r});
    EXPECT_EQ(drawn.ids[0], -1);
    EXPECT_TRUE(std::isnan(drawn.logprobs[0]));
  }
}

TEST_P(LogitEditsTest, ARowDoesNotDependOnItsNeighbours) {
  std::mt19937 random(3);
  std::vector<EditedRow> rows(20);
  for (size_t i = 0; i < rows.size(); ++i) {
    EditedRow& r = rows[i];
    r.logits = normal_values(700, static_cast<uint32_t>(i));
    r.row = {i % 4 == 0 ? 0.0f : 0.9f, 0, 0.95f, 0, 5, 0, static_cast<uint32_t>(i)};
    if (i % 2 == 1) r.row.repetition_penalty = 1.3f;
    if (i % 3 == 1) r.row.frequency_penalty = 0.7f;
    r.prompt = random_ids(random, 30, 700);
    r.output = random_ids(random, static_cast<int>(i), 20);
    for (size_t bias = 0; bias < i % 5; ++bias) {
      r.bias_ids.push_back(static_cast<int32_t>(100 * bias));
      r.biases.push_back(3);
    }
    r.banned = random_ids(random, static_cast<int>(i % 3), 700);
    r.settle();
  }
  const Drawn all = sample(rows);
  for (size_t i = 0; i < rows.size(); ++i) {
    const Drawn one = sample({rows[i]});
    EXPECT_EQ(one.ids[0], all.ids[i]) << i;
    expect_same_bits(one.logprobs, {all.logprobs[i]}, "logprob");
  }
}

TEST_P(LogitEditsTest, CountsAreSetAnewAndThenGrow) {
  const DeviceMatrix counts = upload_ints(std::vector<int32_t>(3 * 6, 9), 3, 6);
  const std::vector<int32_t> prompt = {0, 5, 5}, output = {1, 5, 1};
  backend().set_token_counts(counts.tensor(), 1, prompt.data(), 3, output.data(), 3);
  backend().set_token_counts(counts.tensor(), 2, prompt.data(), 0, output.data(), 1);
  const DeviceMatrix ids = upload_ints({5, 3, 2, -1}, 1, 4);
  const std::vector<int32_t> slots = {1, -1, 2, 1};
  const Buffer on_device = upload_bytes(slots);
  backend().count_tokens(counts.tensor(), static_cast<const int32_t*>(on_device.data()), ids.tensor());
  EXPECT_THAT(counts.ints(), ::testing::ElementsAre(9, 9, 9, 9, 9, 9, 1, 4, 0, 0, 0, 5, 0, 2, 2, 0, 0, 0));
}

}  // namespace
}  // namespace trireme::testing
