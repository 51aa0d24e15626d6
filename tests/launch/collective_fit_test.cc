#include "launch/client/collective_fit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace trireme::client {
namespace {

using ::testing::HasSubstr;

std::vector<CollectivePoint> line(double alpha_us, double beta_gb_s) {
  std::vector<CollectivePoint> points;
  for (int64_t bytes = 4096; bytes <= (64 << 20); bytes *= 2)
    points.push_back({bytes, alpha_us + static_cast<double>(bytes) / (beta_gb_s * 1e3)});
  return points;
}

TEST(CollectiveFitTest, ALineIsFoundAgain) {
  const auto fit = fit_collective(line(16.5, 150));
  ASSERT_TRUE(fit.ok()) << fit.status();
  EXPECT_NEAR(fit->alpha_us, 16.5, 1e-6);
  EXPECT_NEAR(fit->beta_gb_s, 150, 1e-6);
  EXPECT_LT(fit->max_residual, 1e-9);
  EXPECT_NEAR(fit->time_us(150'000'000), 1016.5, 1e-6);
}

TEST(CollectiveFitTest, SmallMessagesCountAsMuchAsLargeOnes) {
  // With plain least squares the large message, 5 % slow, would make alpha thousands of us.
  auto points = line(10, 1);
  points.back().time_us *= 1.05;
  const auto fit = fit_collective(points);
  ASSERT_TRUE(fit.ok()) << fit.status();
  EXPECT_NEAR(fit->alpha_us, 10, 0.5);
  EXPECT_NEAR(fit->beta_gb_s, 1, 0.02);
}

TEST(CollectiveFitTest, ResidualsAreThoseOfTheFittedLine) {
  auto points = line(5, 10);
  for (size_t i = 0; i < points.size(); i += 2) points[i].time_us *= 1.2;
  const auto fit = fit_collective(points);
  ASSERT_TRUE(fit.ok()) << fit.status();
  double squares = 0, largest = 0;
  for (const CollectivePoint& point : points) {
    const double error = std::abs(fit->time_us(point.bytes) - point.time_us) / point.time_us;
    squares += error * error;
    largest = std::max(largest, error);
  }
  EXPECT_NEAR(fit->rms_residual, std::sqrt(squares / static_cast<double>(points.size())), 1e-12);
  EXPECT_NEAR(fit->max_residual, largest, 1e-12);
  EXPECT_GT(fit->rms_residual, 0.05);
  EXPECT_LT(fit->max_residual, 0.2);
}

TEST(CollectiveFitTest, AConstantIsNeverBelowZero) {
  const auto fit = fit_collective(std::vector<CollectivePoint>{{1000, 1}, {2000, 3}, {4000, 7}});
  ASSERT_TRUE(fit.ok()) << fit.status();
  EXPECT_EQ(fit->alpha_us, 0);
  EXPECT_GT(fit->beta_gb_s, 0);
}

TEST(CollectiveFitTest, WhatNoLineCanSayIsRefused) {
  const auto message = [](const std::vector<CollectivePoint>& points) {
    return std::string(fit_collective(points).status().message());
  };
  EXPECT_THAT(message({}), HasSubstr("two sizes"));
  EXPECT_THAT(message({{4096, 1}, {4096, 2}}), HasSubstr("two sizes"));
  EXPECT_THAT(message({{4096, 5}, {8192, 5}, {16384, 5}}), HasSubstr("does not grow"));
  EXPECT_THAT(message({{4096, 5}, {8192, 1}}), HasSubstr("does not grow"));
  EXPECT_THAT(message({{4096, 0}, {8192, 1}}), HasSubstr("above 0"));
  EXPECT_THAT(message({{4096, std::nan("")}, {8192, 1}}), HasSubstr("above 0"));
}

}  // namespace
}  // namespace trireme::client
