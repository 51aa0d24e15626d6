#include "engine/parallel/process_guard.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>

namespace trireme {
namespace {

using std::chrono::milliseconds;

/// Ends the process with a code of its own when nobody else does in time.
[[noreturn]] void wait_for_the_end() {
  std::promise<void> never;
  never.get_future().wait_for(std::chrono::seconds(60));
  std::_Exit(3);
}

TEST(ProcessGuardDeathTest, TheProcessEndsWithTheReasonThatIsFound) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        std::atomic<int> looks{0};
        const ProcessGuard guard(milliseconds(1), [&] {
          return ++looks < 3 ? std::string() : "look " + std::to_string(looks) + ": a cable is out";
        });
        wait_for_the_end();
      },
      ::testing::ExitedWithCode(70), "^look 3: a cable is out\n$");
}

TEST(ProcessGuardDeathTest, TheProcessEndsAtTheDeadline) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        const ProcessGuard guard(milliseconds(20), "rank 1: did not start within 20 ms");
        wait_for_the_end();
      },
      ::testing::ExitedWithCode(70), "^rank 1: did not start within 20 ms\n$");
}

TEST(ProcessGuardTest, NothingEndsWhenItIsDestroyedBefore) {
  std::atomic<int> looks{0};
  {
    std::promise<void> looked;
    const ProcessGuard guard(milliseconds(1), [&] {
      if (++looks == 2) looked.set_value();
      return std::string();
    });
    ASSERT_EQ(looked.get_future().wait_for(std::chrono::seconds(30)), std::future_status::ready);
  }
  const int at_the_end = looks;
  { const ProcessGuard guard(std::chrono::hours(1), "late"); }
  EXPECT_EQ(looks, at_the_end);
}

}  // namespace
}  // namespace trireme
