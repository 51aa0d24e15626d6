#include "engine/base/histogram.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <thread>

namespace trireme {
namespace {

using testing::ElementsAre;

TEST(HistogramTest, BoundsBelongToTheBucketBelow) {
  Histogram histogram({1, 2, 4});
  for (double value : {-3.0, 1.0, 1.5, 2.0, 4.0, 4.1, 1e9}) histogram.observe(value);
  const HistogramSnapshot snapshot = histogram.snapshot();
  EXPECT_THAT(snapshot.counts, ElementsAre(2, 2, 1, 2));
  EXPECT_EQ(snapshot.count, 7);
  EXPECT_DOUBLE_EQ(snapshot.sum, -3 + 1 + 1.5 + 2 + 4 + 4.1 + 1e9);
}

TEST(HistogramTest, NanIsNotCounted) {
  Histogram histogram({1});
  histogram.observe(std::nan(""));
  histogram.observe(HUGE_VAL);
  EXPECT_EQ(histogram.snapshot().count, 1);
  EXPECT_EQ(histogram.snapshot().quantile(0.5), 1);
}

TEST(HistogramTest, QuantileIsWithinItsBucketOfTheExactOne) {
  Histogram histogram(Histogram::exponential_bounds(1, 1.25, 40));
  std::mt19937 random(1);
  std::lognormal_distribution<double> latency(4, 1);
  std::vector<double> values(10000);
  for (double& value : values) histogram.observe(value = latency(random));
  std::sort(values.begin(), values.end());
  const HistogramSnapshot snapshot = histogram.snapshot();
  for (double q : {0.01, 0.5, 0.95, 0.99}) {
    const double exact = values[static_cast<size_t>(q * values.size())];
    EXPECT_GT(snapshot.quantile(q), exact / 1.25) << q;
    EXPECT_LT(snapshot.quantile(q), exact * 1.25) << q;
  }
}

TEST(HistogramTest, QuantilesAreMonotonicAndInterpolated) {
  Histogram histogram({10, 20});
  for (int i = 0; i < 10; ++i) histogram.observe(15);
  const HistogramSnapshot snapshot = histogram.snapshot();
  EXPECT_EQ(snapshot.quantile(0), 10);
  EXPECT_EQ(snapshot.quantile(0.5), 15);
  EXPECT_EQ(snapshot.quantile(1), 20);
  EXPECT_EQ(snapshot.mean(), 15);
}

TEST(HistogramTest, EmptyOneIsZero) {
  const HistogramSnapshot snapshot = Histogram({1}).snapshot();
  EXPECT_EQ(snapshot.quantile(0.5), 0);
  EXPECT_EQ(snapshot.mean(), 0);
}

TEST(HistogramTest, ThreadsLoseNothing) {
  Histogram histogram({1, 2});
  Counter counter;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 10000; ++i) {
        histogram.observe(i % 3 + 0.5);
        counter.add();
      }
    });
  }
  for (int i = 0; i < 100; ++i) EXPECT_LE(histogram.snapshot().count, 40000);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(counter.value(), 40000);
  EXPECT_THAT(histogram.snapshot().counts, ElementsAre(4 * 3334, 4 * 3333, 4 * 3333));
  EXPECT_DOUBLE_EQ(histogram.snapshot().sum, 4 * (3334 * 0.5 + 3333 * 1.5 + 3333 * 2.5));
}

TEST(HistogramDeathTest, BoundsMustAscend) {
  EXPECT_DEATH(Histogram({1, 1}), "upper_bounds_");
  EXPECT_DEATH(Histogram({}), "upper_bounds_");
}

}  // namespace
}  // namespace trireme
