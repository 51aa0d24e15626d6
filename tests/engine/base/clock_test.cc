#include "engine/base/clock.h"

#include <gtest/gtest.h>

namespace trireme {
namespace {

TEST(ClockTest, ManualClockMovesOnlyWhenAdvanced) {
  ManualClock clock;
  const Clock::TimePoint start = clock.now();
  EXPECT_EQ(clock.now(), start);
  clock.advance(std::chrono::milliseconds(1500));
  EXPECT_EQ(clock.now() - start, std::chrono::milliseconds(1500));
  EXPECT_EQ(milliseconds(clock.now() - start), 1500);
}

TEST(ClockDeathTest, ManualClockDoesNotGoBack) {
  ManualClock clock;
  EXPECT_DEATH(clock.advance(std::chrono::seconds(-1)), "check failed");
}

TEST(ClockTest, SteadyClockDoesNotGoBack) {
  SteadyClock steady;
  const Clock& clock = steady;
  const Clock::TimePoint first = clock.now();
  EXPECT_GE(clock.now(), first);
}

}  // namespace
}  // namespace trireme
