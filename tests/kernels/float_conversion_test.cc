#include "kernels/float_conversion.h"

#include <gtest/gtest.h>

#include <cmath>

namespace trireme {
namespace {

TEST(FloatConversionTest, EveryHalfComesBackAsItWas) {
  for (uint32_t bits = 0; bits <= 0xffff; ++bits) {
    const uint16_t half = static_cast<uint16_t>(bits);
    if (std::isnan(f16_to_f32(half)))
      EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(f16_to_f32(half))))) << bits;
    else
      EXPECT_EQ(f32_to_f16(f16_to_f32(half)), half);
    if (std::isnan(bf16_to_f32(half)))
      EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(bf16_to_f32(half))))) << bits;
    else
      EXPECT_EQ(f32_to_bf16(bf16_to_f32(half)), half);
  }
}

/// Between two neighbours `low` and the next one: below the middle down, above it up, the middle to even.
template <typename Widen, typename Narrow>
void expect_nearest_even(uint16_t low, Widen widen, Narrow narrow) {
  const float a = widen(low), b = widen(static_cast<uint16_t>(low + 1)), middle = a + (b - a) / 2;
  const uint16_t even = low % 2 == 0 ? low : static_cast<uint16_t>(low + 1);
  EXPECT_EQ(narrow(middle), even) << low;
  EXPECT_EQ(narrow(std::nextafter(middle, a)), low);
  EXPECT_EQ(narrow(std::nextafter(middle, b)), low + 1);
  EXPECT_EQ(narrow(-middle), even | 0x8000);
}

TEST(FloatConversionTest, RoundsToNearestEven) {
  for (uint16_t low = 0; low < 0x7bff; ++low) expect_nearest_even(low, f16_to_f32, f32_to_f16);
  for (uint16_t low = 0x80; low < 0x7f7f; ++low) expect_nearest_even(low, bf16_to_f32, f32_to_bf16);
}

TEST(FloatConversionTest, WhatIsTooLargeBecomesInfinite) {
  EXPECT_EQ(f32_to_f16(65519.996f), 0x7bff);
  EXPECT_EQ(f32_to_f16(65520.0f), 0x7c00);
  EXPECT_EQ(f32_to_f16(-1e30f), 0xfc00);
  EXPECT_EQ(f32_to_bf16(3.4e38f), 0x7f80);
}

}  // namespace
}  // namespace trireme
