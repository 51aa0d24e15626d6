#include "tests/testing/process.h"

#include <gtest/gtest-spi.h>
#include <gtest/gtest.h>

#include <csignal>

#include "tests/testing/process_fixture.h"
#include "tests/testing/process_table.h"

namespace trireme::testing {
namespace {

TEST(ProcessTest, CollectsOutputAndExitCode) {
  Process process({"sh", "-c", "echo to-out; echo to-err >&2; exit 7"}, {});
  EXPECT_EQ(process.wait(deadline_in(10)), 7);
  EXPECT_EQ(process.standard_output(), "to-out\n");
  EXPECT_NE(process.output().find("to-err\n"), std::string::npos);
}

TEST(ProcessTest, WaitGivesUpAtTheDeadline) {
  Process process({"sleep", "60"}, {});
  EXPECT_EQ(process.wait(deadline_in(0.01)), std::nullopt);
  process.signal(SIGKILL);
  EXPECT_EQ(process.wait(deadline_in(10)), 128 + SIGKILL);
}

TEST(ProcessTest, WaitForOutputSeesTextAndTheLackOfIt) {
  Process process({"sh", "-c", "echo ready; exec sleep 60"}, {});
  EXPECT_TRUE(process.wait_for_output("ready", deadline_in(10)));
  EXPECT_FALSE(process.wait_for_output("never", deadline_in(0.01)));
}

TEST(ProcessTest, AProgramThatIsNotThereIs127) {
  Process process({"/nonexistent/program"}, {});
  EXPECT_EQ(process.wait(deadline_in(10)), 127);
}

TEST(ProcessTest, EnvironmentIsChangedNotReplaced) {
  Process process({"sh", "-c", "echo $PATH-$EXTRA"}, {{"EXTRA", "more"}});
  EXPECT_EQ(process.wait(deadline_in(10)), 0);
  EXPECT_EQ(process.standard_output(), std::string(std::getenv("PATH")) + "-more\n");
}

TEST(ProcessTest, DestructionKillsTheWholeSession) {
  pid_t grandchild = 0;
  {
    Process process({"sh", "-c", "sleep 60 & echo $!.; wait"}, {});
    ASSERT_TRUE(process.wait_for_output(".", deadline_in(10)));
    grandchild = std::stoi(process.standard_output());
    EXPECT_EQ(read_process(grandchild).session, process.pid());
  }
  EXPECT_TRUE(wait_until_gone(grandchild, deadline_in(10)));
}

TEST(ProcessTableTest, FindsAProcessThatLeftItsSession) {
  Process process({"setsid", "--fork", "sleep", "61"}, {{"PROCESS_TABLE_TEST", "here"}});
  ASSERT_EQ(process.wait(deadline_in(10)), 0);
  const auto found = processes_with("PROCESS_TABLE_TEST", "here");
  ASSERT_EQ(found.size(), 1);
  EXPECT_NE(found[0].session, process.pid());
  kill(found[0].pid, SIGKILL);
  EXPECT_TRUE(wait_until_gone(found[0].pid, deadline_in(10)));
}

TEST(ProcessTableTest, CountsProcessorTime) {
  Process process({"sh", "-c", "while :; do :; done"}, {});
  const auto deadline = deadline_in(20);
  while (read_process(process.pid()).cpu_seconds < 0.1 && SteadyClock::now() < deadline) {
    process.wait(deadline_in(0.02));
  }
  EXPECT_GE(read_process(process.pid()).cpu_seconds, 0.1);
}

/// A fixture that can be driven from outside.
class FixtureUnderTest : public ProcessFixture {
 public:
  void TestBody() override {}
  using ProcessFixture::folder;
  using ProcessFixture::leftover_seconds_;
  using ProcessFixture::processes;
  using ProcessFixture::SetUp;
  using ProcessFixture::start;
  using ProcessFixture::TearDown;
};

TEST(ProcessFixtureTest, EndsWhatItStarted) {
  FixtureUnderTest fixture;
  fixture.SetUp();
  const pid_t pid = fixture.start({"sleep", "62"}).pid();
  EXPECT_EQ(fixture.processes("sleep").size(), 1);
  fixture.TearDown();
  EXPECT_EQ(read_process(pid).state, 'X');
  EXPECT_FALSE(std::filesystem::exists(fixture.folder()));
}

TEST(ProcessFixtureTest, AProcessLeftBehindFailsTheTest) {
  static FixtureUnderTest fixture;
  fixture.SetUp();
  fixture.leftover_seconds_ = 0.1;
  Process& process = fixture.start({"setsid", "--fork", "sleep", "63"});
  ASSERT_EQ(process.wait(deadline_in(10)), 0);
  EXPECT_NONFATAL_FAILURE(fixture.TearDown(), "(sleep, state S) was left behind");
}

TEST(ProcessFixtureTest, SharedMemoryLeftBehindFailsTheTest) {
  static FixtureUnderTest fixture;
  fixture.SetUp();
  Process& process = fixture.start({"touch", (fixture.folder() / "vader_segment.host.1").string()});
  ASSERT_EQ(process.wait(deadline_in(10)), 0);
  EXPECT_NONFATAL_FAILURE(fixture.TearDown(), "was left behind");
}

}  // namespace
}  // namespace trireme::testing
