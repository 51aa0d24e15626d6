// How ranks end: followers without a leader, steps that stand still.
#include <gtest/gtest.h>

#include <chrono>
#include <deque>
#include <thread>

#include "worker/exit_code.h"
#include "worker/follower.h"
#include "worker/watchdog.h"

namespace trireme::worker {
namespace {

using std::chrono::milliseconds;

/// Gives what it was told to, then nothing for ever.
class ScriptedFollower : public StepFollower {
 public:
  struct Plan {
    absl::Status status;
    bool more = true;
  };
  explicit ScriptedFollower(std::deque<Plan> script) : script_(std::move(script)) {}
  absl::StatusOr<bool> follow(milliseconds deadline) override {
    if (script_.empty()) {
      std::this_thread::sleep_for(deadline);
      return absl::DeadlineExceededError("rank 1 of 2: no broadcast");
    }
    const Plan next = script_.front();
    script_.pop_front();
    ++followed;
    if (!next.status.ok()) return next.status;
    return next.more;
  }
  int followed = 0;

 private:
  std::deque<Plan> script_;
};

TEST(FollowerTest, RunsPlansUntilStop) {
  ScriptedFollower engine({{}, {}, {.status = {}, .more = false}, {}});
  EXPECT_TRUE(run_follower(engine).ok());
  EXPECT_EQ(engine.followed, 3);
}

TEST(FollowerTest, SilentLeaderIsGone) {
  ScriptedFollower engine(std::deque<ScriptedFollower::Plan>(1));
  const absl::Status status = run_follower(engine, milliseconds(20));
  EXPECT_TRUE(absl::IsUnavailable(status));
  EXPECT_NE(status.message().find("leader is gone"), std::string::npos) << status;
  EXPECT_NE(status.message().find("20 ms"), std::string::npos) << status;
}

TEST(FollowerTest, ErrorsOfTheEngineComeThrough) {
  ScriptedFollower engine({{.status = absl::InvalidArgumentError("bad plan"), .more = true}});
  EXPECT_EQ(run_follower(engine), absl::InvalidArgumentError("bad plan"));
}

TEST(WatchdogTest, StandingStepEndsTheProcessWithOneLine) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        StepProgress progress;
        progress.running = true;
        progress.step = 1234;
        progress.layer = 7;
        progress.collectives = 90;
        Watchdog watchdog(progress, milliseconds(50), "rank 3 on host a.example");
        std::this_thread::sleep_for(std::chrono::seconds(20));
        _exit(0);
      },
      testing::ExitedWithCode(70),
      "^trireme-worker: rank 3 on host a.example: step 1234 has stood still for 50 ms in layer 7 after "
      "collective 90; [^\n]*\n$");
}

TEST(WatchdogTest, MovingOrIdleProcessLives) {
  StepProgress progress;
  progress.running = true;
  Watchdog watchdog(progress, milliseconds(200), "rank 0");
  const auto end = std::chrono::steady_clock::now() + milliseconds(600);
  while (std::chrono::steady_clock::now() < end) {
    progress.move();
    std::this_thread::sleep_for(milliseconds(1));
  }
  progress.running = false;
  std::this_thread::sleep_for(milliseconds(500));
}

TEST(WatchdogTest, TimeoutOfZeroWatchesNothing) {
  StepProgress progress;
  progress.running = true;
  Watchdog watchdog(progress, milliseconds(0), "rank 0");
  std::this_thread::sleep_for(milliseconds(50));
}

TEST(ExitCodeTest, KindsOfErrorsAreToldApart) {
  EXPECT_EQ(exit_code(absl::OkStatus()), ExitCode::kOk);
  EXPECT_EQ(exit_code(absl::InvalidArgumentError("")), ExitCode::kBadData);
  EXPECT_EQ(exit_code(absl::NotFoundError("")), ExitCode::kNoInput);
  EXPECT_EQ(exit_code(absl::UnavailableError("")), ExitCode::kUnavailable);
  EXPECT_EQ(exit_code(absl::ResourceExhaustedError("")), ExitCode::kOsError);
  EXPECT_EQ(exit_code(absl::FailedPreconditionError("")), ExitCode::kConfig);
  EXPECT_EQ(exit_code(absl::InternalError("")), ExitCode::kInternal);
}

}  // namespace
}  // namespace trireme::worker
