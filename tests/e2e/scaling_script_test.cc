// launch/scaling/run.sh from the outside: a sweep of two device counts, interrupted, resumed, refused.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <fstream>
#include <set>

#include "tests/e2e/service_fixture.h"

namespace trireme::testing {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

class ScalingScriptE2eTest : public ServiceFixture {
 protected:
  std::filesystem::path out() const { return folder() / "scaling"; }

  Process& sweep(const std::string& devices, std::vector<std::string> options = {}) {
    std::vector<std::string> command = {source("launch/scaling/run.sh"),
                                        "--model",
                                        demo_model(),
                                        "--out",
                                        out(),
                                        "--build",
                                        program("trireme").parent_path(),
                                        "--devices",
                                        devices,
                                        "--workload",
                                        "random:16,8",
                                        "--concurrency",
                                        "2",
                                        "--requests",
                                        "2",
                                        "--compute-dtype",
                                        "f32",
                                        "--threads-per-rank",
                                        "1",
                                        "--serve-option=--worker-option",
                                        "--serve-option=--kv-memory=16MiB"};
    command.insert(command.end(), options.begin(), options.end());
    return start(command);
  }

  static json read(const std::filesystem::path& path) {
    std::ifstream file(path);
    EXPECT_TRUE(file.is_open()) << path;
    return json::parse(file, nullptr, false);
  }
  std::set<std::string> points() const {
    std::set<std::string> names;
    if (!std::filesystem::exists(out() / "points")) return names;
    for (const auto& entry : std::filesystem::directory_iterator(out() / "points"))
      if (entry.path().extension() == ".json") names.insert(entry.path().stem());
    return names;
  }
  void expect_nothing_running() {
    for (const char* name : {"trireme-worker", "trireme-coordinator", "mpirun", "trireme"})
      EXPECT_TRUE(processes(name).empty()) << name;
  }
};

TEST_F(ScalingScriptE2eTest, MeasuresLayoutsAndReportsThem) {
  Process& script = sweep("1,2,3", {"--repeat", "1", "--goodput", "ttft:60000", "--price", "3.6"});
  EXPECT_EQ(script.wait(deadline_in(120)), 0) << script.output();
  expect_nothing_running();
  EXPECT_THAT(script.output(), HasSubstr("3 of 3"));
  const json report = read(out() / "report.json");
  ASSERT_EQ(report["rows"].size(), 3) << script.output();
  EXPECT_EQ(report["missing"].size(), 0);
  for (int i = 0; i < 2; ++i) {
    const json& row = report["rows"][i];
    EXPECT_EQ(row["status"], "ok") << row.dump(1);
    EXPECT_EQ(row["tensor_parallel"], i + 1);
    EXPECT_GT(row["output_tokens_per_s"]["median"], 0);
    EXPECT_GT(row["goodput_requests_per_s"]["median"], 0);
    EXPECT_GT(row["cost_per_request"]["median"], 0);
    ASSERT_EQ(row["ranks"].size(), i + 1);
    for (const json& rank : row["ranks"]) {
      EXPECT_GT(rank["peak_memory_bytes"], 16 << 20) << rank.dump(1);
      EXPECT_GT(rank["phases"]["compute"], 0) << rank.dump(1);
      EXPECT_TRUE(rank["phases"].contains("idle")) << rank.dump(1);
    }
  }
  EXPECT_EQ(report["rows"][0]["efficiency"]["median"], 1);
  const json& load = report["points"][0]["load"];
  EXPECT_EQ(load["requests"], 4);
  EXPECT_EQ(load["output_tokens"], 32);
  // Three ranks cannot share eight heads: that is a result, too.
  EXPECT_EQ(report["rows"][2]["status"], "refused");
  EXPECT_THAT(report["rows"][2]["reasons"].dump(), HasSubstr("num_heads 8 is not a multiple of it"));
  for (const char* name : {"report.html", "report.md", "report.csv", "plots/speedup.svg", "plots/phases.svg"})
    EXPECT_GT(std::filesystem::file_size(out() / name), 200) << name;
}

TEST_F(ScalingScriptE2eTest, AnInterruptedSweepGoesOnWhereItWas) {
  const std::vector<std::string> options = {"--repeat", "1"};
  Process& script = sweep("1,2", options);
  ASSERT_TRUE(script.wait_for_output("1 of 2", deadline_in(60))) << script.output();
  const auto deadline = deadline_in(60);
  while (processes("trireme-worker").empty() && SteadyClock::now() < deadline)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  script.signal(SIGINT);
  EXPECT_EQ(script.wait(deadline_in(60)), 130) << script.output();
  expect_nothing_running();
  EXPECT_EQ(points().size(), 1) << script.output();
  const auto first = std::filesystem::last_write_time(out() / "points" / (*points().begin() + ".json"));

  Process& resumed = sweep("1,2", options);
  EXPECT_EQ(resumed.wait(deadline_in(120)), 0) << resumed.output();
  EXPECT_THAT(resumed.output(), HasSubstr("1 of 2 points are there already"));
  EXPECT_EQ(points(), (std::set<std::string>{"tp1-dp1-strong-c2-r1", "tp2-dp1-strong-c2-r1"}));
  EXPECT_EQ(std::filesystem::last_write_time(out() / "points/tp1-dp1-strong-c2-r1.json"), first);
  EXPECT_EQ(read(out() / "report.json")["rows"].size(), 2);
  expect_nothing_running();

  // The folder is this experiment's alone.
  Process& other = sweep("1,2", {"--repeat", "2"});
  EXPECT_EQ(other.wait(deadline_in(30)), 1);
  EXPECT_THAT(other.output(), HasSubstr("holds another experiment's results: repeat was 1, now 2"));
}

TEST_F(ScalingScriptE2eTest, ItsOwnDeathEndsTheService) {
  Process& script = sweep("2", {"--repeat", "1", "--requests", "100000"});
  const auto deadline = deadline_in(60);
  while (processes("trireme-worker").size() < 2 && SteadyClock::now() < deadline)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  std::vector<ProcessEntry> all;
  for (const char* name : {"trireme-worker", "trireme-coordinator", "mpirun"})
    for (const ProcessEntry& entry : processes(name)) all.push_back(entry);
  EXPECT_GE(all.size(), 4);
  script.signal(SIGKILL);
  EXPECT_EQ(script.wait(deadline_in(10)), 128 + SIGKILL);
  for (const ProcessEntry& entry : all) EXPECT_TRUE(wait_until_gone(entry.pid, deadline_in(30))) << entry.pid;
}

TEST_F(ScalingScriptE2eTest, APointThatFailsDoesNotEndTheSweep) {
  // No context of the model holds such prompts: the load generator says so, of one device as of two.
  Process& script = sweep("1,2", {"--repeat", "1", "--workload", "random:4000,8"});
  EXPECT_EQ(script.wait(deadline_in(120)), 1) << script.output();
  EXPECT_THAT(script.output(), HasSubstr("2 of 2"));
  EXPECT_THAT(script.output(), HasSubstr("2 failed"));
  EXPECT_EQ(read(out() / "points/tp2-dp1-strong-c2-r1.json")["status"], "failed");
  EXPECT_THAT(read(out() / "points/tp2-dp1-strong-c2-r1.json")["reason"].dump(), HasSubstr("4000"));
  expect_nothing_running();
}

}  // namespace
}  // namespace trireme::testing
