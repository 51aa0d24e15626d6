#include <algorithm>
#include <limits>
#include <map>
#include <numeric>

#include "kernels/cpu/philox.h"
#include "tests/kernels/backend_fixture.h"

namespace trireme::testing {
namespace {

// Known answers: kat_vectors of Random123, the authors' library.
TEST(PhiloxTest, KnownAnswers) {
  using Words = std::array<uint32_t, 4>;
  EXPECT_EQ(cpu::philox4x32_10({0, 0, 0, 0}, {0, 0}),
            (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(cpu::philox4x32_10({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(cpu::philox4x32_10({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(PhiloxTest, UniformIsBelowOne) {
  double sum = 0;
  for (uint32_t i = 0; i < 10000; ++i) {
    const double u = cpu::sampling_uniform(42, 3, i);
    ASSERT_GE(u, 0);
    ASSERT_LT(u, 1);
    sum += u;
  }
  EXPECT_NEAR(sum / 10000, 0.5, 0.015);
}

struct Drawn {
  std::vector<int32_t> ids;
  std::vector<float> logprobs;
};

class SamplingTest : public BackendTest {
 protected:
  Drawn sample(const std::vector<float>& logits, int64_t cols, int64_t vocab,
               const std::vector<SamplingRow>& rows) {
    const int64_t count = static_cast<int64_t>(rows.size());
    const DeviceMatrix in = upload_f32(logits, count, cols, 2), logprobs = empty_f32(1, count);
    const DeviceMatrix ids = upload_ints(std::vector<int32_t>(rows.size(), -7), 1, count);
    const Buffer on_device = upload_bytes(rows);
    backend().sample(in.tensor(), vocab, static_cast<const SamplingRow*>(on_device.data()), ids.tensor(),
                     logprobs.tensor());
    return {ids.ints(), logprobs.floats()};
  }
};
TRIREME_INSTANTIATE_BACKENDS_OF_ONE_DTYPE(SamplingTest);

/// Ids that the filters keep, by a full sort.
std::vector<double> naive_kept(const std::vector<float>& logits, const SamplingRow& row) {
  const double maximum = *std::max_element(logits.begin(), logits.end());
  std::vector<double> p(logits.size());
  for (size_t i = 0; i < p.size(); ++i)
    p[i] = std::exp((static_cast<double>(logits[i]) - maximum) / row.temperature);
  const double total = std::accumulate(p.begin(), p.end(), 0.0);
  std::vector<size_t> order(p.size());
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  std::vector<double> kept(p.size(), 0);
  double mass = 0;
  for (size_t rank = 0; rank < order.size(); ++rank) {
    if (row.top_k > 0 && rank >= static_cast<size_t>(row.top_k)) break;
    if (rank > 0 && row.top_p < 1 && mass >= row.top_p * total) break;
    mass += p[order[rank]];
    if (p[order[rank]] >= row.min_p) kept[order[rank]] = p[order[rank]];
  }
  return kept;
}

int32_t naive_draw(const std::vector<double>& kept, double u) {
  const double mass = std::accumulate(kept.begin(), kept.end(), 0.0);
  double sum = 0;
  int32_t id = -1;
  for (size_t i = 0; i < kept.size(); ++i) {
    if (kept[i] == 0) continue;
    id = static_cast<int32_t>(i);
    sum += kept[i];
    if (sum > u * mass) break;
  }
  return id;
}

TEST_P(SamplingTest, GreedyTakesTheLowestIdAmongEquals) {
  for (const int64_t vocab : {1, 3, 17, 63, 500, 5001}) {
    std::vector<float> logits = normal_values(vocab, 1);
    if (vocab >= 17) logits[16] = logits[vocab / 2 + 3] = logits[vocab - 1] = 9;
    const Drawn drawn = sample(logits, vocab, vocab, {SamplingRow{}});
    EXPECT_EQ(drawn.ids[0], std::max_element(logits.begin(), logits.end()) - logits.begin());
  }
}

TEST_P(SamplingTest, LogprobIsOfTheUnmodifiedLogits) {
  for (const int64_t vocab : {1, 17, 500, 40000}) {
    const auto logits = normal_values(2 * vocab, 1, 5);
    const Drawn drawn =
        sample(logits, vocab, vocab, {SamplingRow{}, SamplingRow{0.3f, 5, 0.9f, 0, 11, 2, 3}});
    for (size_t r = 0; r < 2; ++r) {
      const float* row = &logits[r * vocab];
      double sum = 0;
      for (int64_t i = 0; i < vocab; ++i) sum += std::exp(static_cast<double>(row[i]) - row[drawn.ids[r]]);
      EXPECT_NEAR(drawn.logprobs[r], -std::log(sum), 1e-5) << vocab;
    }
  }
}

TEST_P(SamplingTest, PaddingColumnsAreNeverDrawn) {
  std::vector<float> logits(70, 100.0f);
  std::fill(logits.begin(), logits.begin() + 50, 0.0f);
  logits[60] = std::nanf("");
  for (uint32_t i = 0; i < 50; ++i) {
    const Drawn drawn = sample(logits, 70, 50, {SamplingRow{i % 2 == 0 ? 0.0f : 1.0f, 0, 1, 0, 1, 0, i}});
    EXPECT_GE(drawn.ids[0], 0);
    EXPECT_LT(drawn.ids[0], 50);
    EXPECT_NEAR(drawn.logprobs[0], -std::log(50.0), 1e-5);
  }
}

TEST_P(SamplingTest, ARowWithNanGivesNoToken) {
  auto logits = normal_values(3 * 37, 1);
  logits[37 + 36] = std::nanf("");
  for (const float temperature : {0.0f, 0.8f}) {
    const SamplingRow row{temperature, 4, 0.9f, 0, 1, 0, 0};
    const Drawn drawn = sample(logits, 37, 37, {row, row, row});
    EXPECT_GE(drawn.ids[0], 0);
    EXPECT_EQ(drawn.ids[1], -1);
    EXPECT_TRUE(std::isnan(drawn.logprobs[1]));
    EXPECT_GE(drawn.ids[2], 0);
  }
}

TEST_P(SamplingTest, InfiniteLogits) {
  std::vector<float> logits(20, -INFINITY);
  EXPECT_EQ(sample(logits, 20, 20, {SamplingRow{}}).ids[0], -1);  // no softmax
  logits[7] = 1;
  for (uint32_t i = 0; i < 20; ++i) {
    const Drawn drawn = sample(logits, 20, 20, {SamplingRow{1.0f, 3, 0.99f, 0, 1, 0, i}});
    EXPECT_EQ(drawn.ids[0], 7);
    EXPECT_EQ(drawn.logprobs[0], 0.0f);
  }
  logits[9] = INFINITY;
  EXPECT_EQ(sample(logits, 20, 20, {SamplingRow{}}).ids[0], -1);
}

TEST_P(SamplingTest, TheSmallestTemperatureIsGreedy) {
  const auto logits = normal_values(500, 8);
  const int64_t best = std::max_element(logits.begin(), logits.end()) - logits.begin();
  for (const float temperature : {std::numeric_limits<float>::denorm_min(), 1e-40f, 1e-20f}) {
    for (uint32_t i = 0; i < 5; ++i)
      EXPECT_EQ(sample(logits, 500, 500, {SamplingRow{temperature, 0, 1, 0, 1, 0, i}}).ids[0], best);
  }
}

/// Whether `id` is what the filters and `u` give. Sums differ in their last bits: who lies that near to a
/// border is right, too, to a draw's and to top-p's.
bool may_be_drawn(const std::vector<float>& logits, const SamplingRow& row, double u, int32_t id) {
  if (id < 0) return false;
  for (const float top_p : {row.top_p, row.top_p * (1 - 4e-6f), row.top_p * (1 + 4e-6f)}) {
    SamplingRow near = row;
    near.top_p = std::min(top_p, 1.0f);
    const auto kept = naive_kept(logits, near);
    const double mass = std::accumulate(kept.begin(), kept.end(), 0.0), slack = 5e-6 * mass;
    const double before = std::accumulate(kept.begin(), kept.begin() + id, 0.0),
                 own = kept[static_cast<size_t>(id)];
    if (own > 0 && before <= u * mass + slack && before + own >= u * mass - slack) return true;
  }
  return false;
}

TEST_P(SamplingTest, DrawsEqualANaiveSamplerForAllFilters) {
  for (const int64_t vocab : sizes<int64_t>({1, 3, 65, 500, 3001}, {3, 700})) {
    for (const float spread : {0.5f, 4.0f}) {
      const auto logits = normal_values(vocab, 3, spread);
      for (const int32_t top_k : {0, 1, 2, 40, 499}) {
        for (const float top_p : {1.0f, 0.99999994f, 0.999f, 0.9f, 0.3f, 0.0f}) {
          for (const float min_p : {0.0f, 0.05f, 1.0f}) {
            const SamplingRow row{0.7f, top_k, top_p, min_p, 77, 1, static_cast<uint32_t>(top_k) + 5};
            const double u = cpu::sampling_uniform(row.seed, row.sample_index, row.output_index);
            const Drawn drawn = sample(logits, vocab, vocab, {row});
            EXPECT_TRUE(may_be_drawn(logits, row, u, drawn.ids[0]))
                << "vocab " << vocab << " k " << top_k << " p " << top_p << " min " << min_p << ": got "
                << drawn.ids[0] << ", wanted " << naive_draw(naive_kept(logits, row), u);
          }
        }
      }
    }
  }
}

TEST_P(SamplingTest, EqualProbabilitiesAreKeptFromTheLowestId) {
  const std::vector<float> logits(100, 1.0f);
  std::map<int32_t, int> seen_k, seen_p;
  for (uint32_t i = 0; i < (backends_are_slow() ? 100 : 300); ++i) {
    ++seen_k[sample(logits, 100, 100, {SamplingRow{1, 5, 1, 0, 9, 0, i}}).ids[0]];
    ++seen_p[sample(logits, 100, 100, {SamplingRow{1, 0, 0.035f, 0, 9, 0, i}}).ids[0]];
  }
  EXPECT_THAT(seen_k, ::testing::SizeIs(5));
  EXPECT_EQ(seen_k.rbegin()->first, 4);
  EXPECT_THAT(seen_p, ::testing::SizeIs(4));
  EXPECT_EQ(seen_p.rbegin()->first, 3);
}

/// Chi-square against the exact distribution of the kept ids.
TEST_P(SamplingTest, DrawsFollowTheDistribution) {
  const int64_t vocab = 40;
  const auto logits = normal_values(vocab, 21, 1.5f);
  struct Filters {
    float temperature;
    int32_t top_k;
    float top_p, min_p;
  };
  for (const Filters f : {Filters{1, 0, 1, 0}, {0.5f, 10, 1, 0}, {2, 0, 0.8f, 0}, {1, 0, 1, 0.1f}}) {
    const SamplingRow prototype{f.temperature, f.top_k, f.top_p, f.min_p, 1234567890123ull, 0, 0};
    const auto kept = naive_kept(logits, prototype);
    const double mass = std::accumulate(kept.begin(), kept.end(), 0.0);
    const int draws = backends_are_slow() ? 640 : 16000, batch = 64;
    std::vector<int> counts(vocab, 0);
    std::vector<float> rows_of_logits;
    for (int i = 0; i < batch; ++i) rows_of_logits.insert(rows_of_logits.end(), logits.begin(), logits.end());
    for (int i = 0; i < draws; i += batch) {
      std::vector<SamplingRow> rows(batch, prototype);
      for (int b = 0; b < batch; ++b) rows[b].output_index = static_cast<uint32_t>(i + b);
      for (const int32_t id : sample(rows_of_logits, vocab, vocab, rows).ids) {
        ASSERT_GE(id, 0);
        ++counts[id];
      }
    }
    const auto most = static_cast<size_t>(std::max_element(kept.begin(), kept.end()) - kept.begin());
    double chi_square = 0, rare_want = 0;
    int cells = 0, rare_count = 0;
    const auto add_cell = [&](double count, double want) {
      chi_square += (count - want) * (count - want) / want;
      ++cells;
    };
    for (size_t i = 0; i < kept.size(); ++i) {
      const double want = kept[i] / mass * draws;
      if (kept[i] == 0) {
        EXPECT_EQ(counts[i], 0) << "id " << i << " is filtered";
      } else if (want < 5) {  // too rare for a cell of its own: counted with the most frequent one
        rare_want += want;
        rare_count += counts[i];
      } else if (i != most) {
        add_cell(counts[i], want);
      }
    }
    add_cell(counts[most] + rare_count, kept[most] / mass * draws + rare_want);
    // The mean is cells - 1, the variance twice that: eight deviations, since each run has other logits.
    EXPECT_LE(chi_square, cells - 1 + 8 * std::sqrt(2.0 * (cells - 1)))
        << "k " << f.top_k << " p " << f.top_p;
  }
}

TEST_P(SamplingTest, ARowDoesNotDependOnItsNeighbours) {
  const int64_t vocab = 3000;
  const auto logits = normal_values(20 * vocab, 3);
  std::vector<SamplingRow> rows;
  for (uint32_t i = 0; i < 20; ++i) rows.push_back({0.8f, i % 3 == 0 ? 50 : 0, 0.95f, 0.01f, 5, i, 2 * i});
  const Drawn all = sample(logits, vocab, vocab, rows);
  for (int64_t r = 0; r < 20; ++r) {
    const Drawn one = sample(rows_of(logits, vocab, r, 1), vocab, vocab, {rows[static_cast<size_t>(r)]});
    EXPECT_EQ(one.ids[0], all.ids[static_cast<size_t>(r)]);
    expect_same_bits(one.logprobs, {all.logprobs[static_cast<size_t>(r)]}, "logprob");
  }
}

}  // namespace
}  // namespace trireme::testing
