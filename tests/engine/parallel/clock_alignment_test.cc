// Runs alone and under mpirun with any number of ranks.

#include "engine/parallel/clock_alignment.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <random>

#include "tests/testing/mpi_main.h"

namespace trireme {
namespace {

using std::chrono::milliseconds;
using testing::world;
constexpr milliseconds kDeadline{20'000};

/// Pings whose ways there and back take between 2 us and `slowest_ns`, to a clock that is `offset_ns` ahead.
std::vector<ClockSample> pings(int count, int64_t offset_ns, int64_t slowest_ns, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_int_distribution<int64_t> way(2000, slowest_ns);
  std::vector<ClockSample> samples;
  int64_t now = 5'000'000'000;
  for (int i = 0; i < count; ++i) {
    const int64_t there = way(random), back = way(random);
    samples.push_back({now, now + there + offset_ns, now + there + back});
    now += there + back + 1000;
  }
  return samples;
}

TEST(ClockOffsetTest, TheTrueOffsetIsWithinTheStatedError) {
  for (const int64_t offset :
       {int64_t{0}, int64_t{1234}, int64_t{-987'654'321}, int64_t{3'600'000'000'000}}) {
    for (unsigned seed = 0; seed < 200; ++seed) {
      const ClockOffset found = estimate_clock_offset(pings(12, offset, 500'000, seed));
      EXPECT_LE(std::abs(found.offset_ns - offset), found.error_ns) << "seed " << seed;
    }
  }
}

TEST(ClockOffsetTest, TheErrorIsNoMoreThanHalfTheShortestRoundTrip) {
  for (unsigned seed = 0; seed < 200; ++seed) {
    const auto samples = pings(12, 77'000, 500'000, seed);
    int64_t shortest = samples.front().received_ns - samples.front().sent_ns;
    for (const ClockSample& sample : samples)
      shortest = std::min(shortest, sample.received_ns - sample.sent_ns);
    EXPECT_LE(estimate_clock_offset(samples).error_ns, (shortest + 1) / 2);
  }
}

TEST(ClockOffsetTest, OnePingGivesTheMiddle) {
  const std::vector<ClockSample> one{{1000, 51'000, 3000}};
  EXPECT_EQ(estimate_clock_offset(one).offset_ns, 49'000);
  EXPECT_EQ(estimate_clock_offset(one).error_ns, 1000);
  EXPECT_EQ(estimate_clock_offset(one).to_ours(51'000), 2000);
}

TEST(ClockOffsetTest, WhereAClockWasSetTheShortestPingDecides) {
  const std::vector<ClockSample> samples{{0, 1'000'000, 20'000}, {30'000, 9'000'000, 34'000}};
  const ClockOffset found = estimate_clock_offset(samples);
  EXPECT_EQ(found.offset_ns, 9'000'000 - 32'000);
  EXPECT_EQ(found.error_ns, 2000);
}

TEST(ClockAlignmentTest, RanksOfOneKernelReadOneClock) {
  ClockAlignment clocks(world());
  ASSERT_TRUE(clocks.align(kDeadline).ok());
  ASSERT_TRUE(clocks.align(kDeadline).ok());
  EXPECT_TRUE(clocks.common());
  for (const ClockOffset& clock : clocks.offsets()) {
    EXPECT_EQ(clock.offset_ns, 0);
    EXPECT_EQ(clock.error_ns, 0);
  }
}

/// Rank r's clock is 10 r seconds ahead.
int64_t shifted_ns() {
  const auto time = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time).count() +
         int64_t{10'000'000'000} * world().rank();
}

TEST(ClockAlignmentTest, AShiftedClockIsFoundWithinItsError) {
  ClockAlignment clocks(world(), &shifted_ns);
  for (int again = 0; again < 3; ++again) {
    ASSERT_TRUE(clocks.align(kDeadline).ok());
    EXPECT_EQ(clocks.common(), world().size() == 1);
    for (size_t rank = 0; rank < clocks.offsets().size(); ++rank) {
      const ClockOffset& clock = clocks.offsets()[rank];
      EXPECT_LE(std::abs(clock.offset_ns - int64_t{10'000'000'000} * static_cast<int64_t>(rank)),
                clock.error_ns);
      if (rank > 0) {
        EXPECT_GT(clock.error_ns, 0);
      }
    }
  }
}

}  // namespace
}  // namespace trireme
