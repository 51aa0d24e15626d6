#include "engine/plan/projection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace trireme {
namespace {

using ::testing::HasSubstr;

// 10 us and 100 GB/s, known to a tenth. Rows are 1,000 features of 2 bytes; 10 layers sum 20 times.
std::map<int, CollectiveEstimate> collectives() {
  const CollectiveEstimate estimate{AllReduceCost({AllReduceCurve::line(10e-6, 100e9, "test")}), 0.1};
  return {{2, estimate}, {4, estimate}};
}
const ShardRun kRun{10, 1000, 512, 256, 2};

TEST(ProjectionTest, AddsTheSumsThatWereLeftOut) {
  const auto points =
      project({{4, 50, 3, 3.3, 0}, {1, 50, 10, 11, 0}, {2, 50, 5.5, 5.5, 0}}, kRun, collectives());
  ASSERT_TRUE(points.ok()) << points.status();
  ASSERT_EQ(points->size(), 3u);
  const ProjectedPoint &one = (*points)[0], &four = (*points)[2];
  EXPECT_EQ(one.tp_size, 1);
  EXPECT_EQ(one.step_ms.central, 10);
  EXPECT_EQ(one.efficiency.low, 1);
  EXPECT_EQ(one.efficiency.high, 1);
  EXPECT_EQ(one.step_ms.high, 11);
  // 50 rows: 100,000 bytes, 11 us each, 0.22 ms in all.
  EXPECT_EQ(four.tp_size, 4);
  EXPECT_NEAR(four.all_reduce_ms.central, 0.22, 1e-9);
  EXPECT_NEAR(four.step_ms.central, 1.04 * 3.22, 1e-9);
  EXPECT_NEAR(four.step_ms.low, 1.03 * (3 + 0.9 * 0.22), 1e-9);
  EXPECT_NEAR(four.step_ms.high, 1.05 * (3.3 + 1.1 * 0.22), 1e-9);
  EXPECT_NEAR(four.efficiency.central, 10 / (4 * 1.04 * 3.22), 1e-9);
  EXPECT_LT(four.efficiency.low, four.efficiency.central);
  EXPECT_GT(four.efficiency.high, four.efficiency.central);
  EXPECT_NEAR(four.tokens_per_s.central, 50 / (1.04 * 3.22e-3), 1e-6);
  EXPECT_EQ(four.prefill_efficiency.central, 0);
}

TEST(ProjectionTest, PrefillSumsOncePerChunk) {
  const auto points = project({{1, 1, 10, 10, 512 / 0.1}, {2, 1, 5, 5, 512 / 0.05}}, kRun, collectives());
  ASSERT_TRUE(points.ok());
  // Two chunks of 256 rows: 512,000 bytes, 15.12 us, 20 times each.
  const double ms = 1.04 * (50 + 2 * 20 * 15.12e-3);
  EXPECT_NEAR((*points)[1].prefill_efficiency.central, 100 / (2 * ms), 1e-9);
}

TEST(ProjectionTest, WithoutOneDeviceTheSmallestIsTheBase) {
  const auto points = project({{4, 1, 3, 3, 0}, {2, 1, 5, 5, 0}, {2, 8, 6, 6, 0}}, kRun, collectives());
  ASSERT_TRUE(points.ok());
  EXPECT_EQ((*points)[1].base_tp_size, 2);
  EXPECT_NEAR((*points)[0].efficiency.central, 1, 1e-12);
  EXPECT_NEAR((*points)[1].efficiency.central,
              (*points)[0].step_ms.central * 2 / ((*points)[1].step_ms.central * 4), 1e-12);
  EXPECT_EQ((*points)[2].batch, 8);
  EXPECT_NEAR((*points)[2].efficiency.central, 1, 1e-12);
}

TEST(ProjectionTest, WhatCannotBeProjectedIsNamed) {
  const auto why = [](std::vector<ShardTime> shards) {
    return std::string(project(shards, kRun, collectives()).status().message());
  };
  EXPECT_THAT(why({{8, 1, 3, 3, 0}}), HasSubstr("no cost of an all-reduce among 8 ranks"));
  EXPECT_THAT(why({{2, 1, 3, 3, 0}, {2, 1, 4, 4, 0}}), HasSubstr("measured twice"));
  EXPECT_THAT(why({{2, 1, 0, 3, 0}}), HasSubstr("wanted times above 0"));
  EXPECT_FALSE(project({{1, 1, 1, 1, 0}}, {0, 1000, 1, 1, 2}, {}).ok());
}

}  // namespace
}  // namespace trireme
