// What the conformance tests themselves are held to.

#include <gtest/gtest-spi.h>

#include <limits>

#include "tests/kernels/backend_fixture.h"

namespace trireme::testing {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr double kAnything = std::numeric_limits<double>::infinity();

void compare(float got, double want, double tolerance) { expect_close({got}, {want}, {tolerance}, "it"); }

TEST(ConformanceTest, ANanNeverPasses) {
  EXPECT_FATAL_FAILURE(compare(kNan, 0, kAnything), "got nan");
  EXPECT_FATAL_FAILURE(compare(0, kNan, kAnything), "wanted nan");
  EXPECT_FATAL_FAILURE(compare(kNan, kNan, kAnything), "got nan");
  compare(1, 2, 1);
  EXPECT_FATAL_FAILURE(compare(1, 2, 0.5), "wanted 2 within 0.5");
}

TEST(ConformanceTest, WhatNobodyWroteIsANan) {
  const auto backend = create_cpu_backend({});
  ASSERT_TRUE(backend.ok());
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
    for (const float value : DeviceMatrix(**backend, 3, 5, 2, dtype).floats()) EXPECT_TRUE(std::isnan(value));
}

TEST(ConformanceTest, InputsAreOthersForEachSeedAndTheSameInOneRun) {
  EXPECT_EQ(normal_values(100, 1), normal_values(100, 1));
  EXPECT_NE(normal_values(100, 1), normal_values(100, 2));
  EXPECT_EQ(run_seed(), run_seed());
}

}  // namespace
}  // namespace trireme::testing
