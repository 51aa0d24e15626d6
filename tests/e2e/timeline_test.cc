// Where the time of real ranks went: as the coordinator tells it, and as a trace.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <fstream>
#include <sstream>

#include "tests/e2e/service_fixture.h"
#include "tests/testing/trace_check.h"

namespace trireme::testing {
namespace {

using ::testing::IsEmpty;

class TimelineE2eTest : public ServiceFixture {
 protected:
  static std::string read(const std::filesystem::path& path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  }
  void make_tokens(int count) {
    const CommandResult run =
        generate({"--prompt", "In the beginning", "--max-tokens", std::to_string(count), "--ignore-eos"});
    ASSERT_EQ(run.exit_code, 0) << run.output;
  }
};

TEST_F(TimelineE2eTest, TheTimeOfEveryRankIsTold) {
  start_coordinator();
  start_job(2, {"--tensor-parallel", "2"});
  wait_serving(2);
  make_tokens(64);
  wait_for_cluster("the ranks' times are complete", [](const v1::GetClusterResponse& cluster) {
    const v1::ReplicaLoad& load = cluster.replicas(0).load();
    return load.rank_times_size() == 2 && load.rank_times_steps() == load.steps() && load.steps() >= 64;
  });
  const CommandResult status = run_trireme({"status", "--json", "--address", address()});
  const nlohmann::json load = status.json["cluster"]["replicas"][0]["load"];
  ASSERT_EQ(load["rank_times"].size(), 2u) << status.output;
  EXPECT_GT(load.value("delivery_seconds", 0.0), 0);
  for (size_t rank = 0; rank < load["rank_times"].size(); ++rank) {
    const nlohmann::json& times = load["rank_times"][rank];
    EXPECT_EQ(times["rank"], rank);
    double sum = 0;
    for (const char* phase : {"idle", "schedule", "broadcast", "upload", "compute", "collective_wait",
                              "collective_transfer", "sample", "finish", "host", "unaccounted"}) {
      const double seconds = times.value(std::string(phase) + "_seconds", -1.0);
      EXPECT_GE(seconds, 0) << phase << times.dump(1);
      sum += seconds;
    }
    EXPECT_NEAR(sum, times.value("wall_seconds", -1.0), 1e-6);
    EXPECT_GT(times.value("compute_seconds", 0.0), 0);
    EXPECT_GT(times.value("collective_transfer_seconds", 0.0), 0);
    EXPECT_EQ(times.value("clock_error_seconds", -1.0), 0);
    EXPECT_GT(times.value("collectives", 0), 64);
    EXPECT_EQ(times["compared_collectives"], times["collectives"]);
  }
}

TEST_F(TimelineE2eTest, EveryReplicaLeavesATraceOfItsRanks) {
  Process& coordinator = start_coordinator();
  Process& job = start_job(
      4, {"--tensor-parallel", "2", "--trace", (folder() / "trace.json").string(), "--trace-steps", "50"});
  wait_serving(4);
  for (int i = 0; i < 4; ++i) make_tokens(16);  // in turns, where nothing else decides
  stop(coordinator);
  EXPECT_EQ(job.wait(deadline_in(20)), 0) << job.output();
  int steps = 0;
  for (int replica = 0; replica < 2; ++replica) {
    const std::string text = read(folder() / ("trace." + std::to_string(replica) + ".json"));
    const TraceSummary summary = check_trace(text);
    EXPECT_THAT(summary.error, IsEmpty());
    for (const auto& [track, events] : summary.events) {
      EXPECT_EQ(track.first, replica);
      if (track.second == 0 && events.contains("step")) steps += events.at("step");
    }
  }
  EXPECT_GE(steps, 16);
}

TEST_F(TimelineE2eTest, AKilledJobLeavesItsLastTrace) {
  const std::filesystem::path path = folder() / "trace.json";
  start_coordinator();
  Process& job = start_job(
      2, {"--tensor-parallel", "2", "--trace", path.string(), "--trace-steps", "50", "--trace-interval", "1"},
      endless_model());
  wait_serving(2);
  const auto stub = inference_stub();
  Stream stream(*stub, greedy_request("In the beginning", 90000));
  ASSERT_TRUE(stream.read_tokens(3));
  const auto deadline = deadline_in(30);
  while (read(path).empty() && SteadyClock::now() < deadline)
    ASSERT_TRUE(stream.read_tokens(stream.num_tokens() + 1));
  shared_memory_may_stay_ = true;
  for (const Rank& rank : ranks()) kill(rank.pid, SIGKILL);
  ASSERT_TRUE(job.wait(deadline_in(20))) << job.output();
  const TraceSummary summary = check_trace(read(path));
  EXPECT_THAT(summary.error, IsEmpty());
  ASSERT_EQ(summary.events.size(), 2u);
  for (const auto& [track, events] : summary.events) EXPECT_GT(events.at("step"), 0) << track.second;
}

TEST_F(TimelineE2eTest, ATraceThatCannotBeWrittenIsToldBeforeLoading) {
  Process& worker = start({program("trireme-worker").string(), "--model", demo_model().string(), "--trace",
                           "/nowhere/trace.json"});
  EXPECT_EQ(worker.wait(deadline_in(20)), 78) << worker.output();
  EXPECT_THAT(worker.output(),
              ::testing::HasSubstr("--trace: cannot write /nowhere/trace.json: No such file"));
}

}  // namespace
}  // namespace trireme::testing
