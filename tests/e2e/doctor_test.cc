// trireme doctor under a real mpirun, with a rank that is broken on purpose.

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "tests/e2e/service_fixture.h"

namespace trireme::testing {
namespace {

class DoctorE2eTest : public ServiceFixture {
 protected:
  struct Rank {
    std::filesystem::path program, model;
  };

  /// One job, each rank with a program and a model of its own.
  CommandResult examine(const std::vector<Rank>& ranks, const std::vector<std::string>& mpirun_options = {},
                        const std::vector<std::string>& options = {}) {
    std::vector<std::string> command = {"mpirun", "--oversubscribe", "--bind-to", "none", "--mca",
                                        "btl",    "self,vader",      "--quiet"};
    command.insert(command.end(), mpirun_options.begin(), mpirun_options.end());
    for (const Rank& rank : ranks) {
      if (&rank != &ranks.front()) command.push_back(":");
      command.insert(command.end(), {"-np", "1", rank.program, "doctor", "--json", "--model", rank.model});
      command.insert(command.end(), options.begin(), options.end());
    }
    Process& process = start(command);
    CommandResult result;
    result.exit_code = process.wait(deadline_in(60)).value_or(-1);
    result.output = process.output();
    result.json = nlohmann::json::parse(process.standard_output(), nullptr, false);
    return result;
  }

  static std::vector<nlohmann::json> problems(const CommandResult& run) {
    std::vector<nlohmann::json> result;
    if (!run.json.is_object()) return result;
    for (const auto& finding : run.json["findings"]) {
      if (finding["problem"]) result.push_back(finding);
    }
    return result;
  }
};

TEST_F(DoctorE2eTest, RanksThatAreWellAreNotAccused) {
  const Rank well{program("trireme"), demo_model()};
  const CommandResult run = examine({well, well, well});
  EXPECT_EQ(run.exit_code, 0) << run.output;
  ASSERT_TRUE(run.json.is_object()) << run.output;
  EXPECT_TRUE(problems(run).empty()) << run.output;
  EXPECT_EQ(run.json["ranks"].size(), 3u);
  for (const auto& rank : run.json["ranks"]) {
    EXPECT_LT(std::abs(rank["clock_offset_s"].get<double>()), 10.0);
    EXPECT_EQ(rank["timeline_error_s"], 0.0) << "ranks of one kernel read one clock";
  }
  // Either they were looked at, or it is said why not.
  EXPECT_NE(run.json["devices_skipped"].get<std::string>().empty(),
            run.json["device_collectives"].get<std::string>().empty())
      << run.output;
  ASSERT_EQ(run.json["links"].size(), 3u);
  for (const auto& link : run.json["links"]) {
    EXPECT_GT(link["gb_s"], 0.0);
    EXPECT_GT(link["round_trip_us"], 0.0);
  }
}

TEST_F(DoctorE2eTest, TheRankWithABrokenCheckpointIsNamed) {
  const std::filesystem::path broken = folder() / "broken-model";
  std::filesystem::copy(demo_model(), broken);
  std::filesystem::resize_file(broken / "model.safetensors", 1 << 20);
  const Rank well{program("trireme"), demo_model()};
  const CommandResult run = examine({well, {program("trireme"), broken}, well});
  EXPECT_EQ(run.exit_code, 1) << run.output;
  ASSERT_EQ(problems(run).size(), 2u) << run.output;
  for (const auto& problem : problems(run)) {
    EXPECT_EQ(problem["rank"], 1);
    EXPECT_EQ(problem["check"], "model");
    EXPECT_NE(problem["message"].get<std::string>().find("model.safetensors"), std::string::npos);
  }
}

TEST_F(DoctorE2eTest, ARankWithoutTheGpuThatIsAskedForIsNamed) {
  // Hidden, whatever this machine has.
  const Rank well{program("trireme"), demo_model()};
  const CommandResult run = examine({well, well}, {"-x", "CUDA_VISIBLE_DEVICES="}, {"--backend", "cuda"});
  EXPECT_EQ(run.exit_code, 1) << run.output;
  ASSERT_EQ(problems(run).size(), 2u) << run.output;
  for (int rank : {0, 1}) {
    const nlohmann::json problem = problems(run)[static_cast<size_t>(rank)];
    EXPECT_EQ(problem["check"], "GPU");
    EXPECT_EQ(problem["rank"], rank);
    EXPECT_FALSE(problem["message"].get<std::string>().empty());
  }
  EXPECT_EQ(run.json["devices_skipped"], "2 of 2 ranks have none");
}

TEST_F(DoctorE2eTest, TheRankOfAnotherBuildIsNamed) {
  const std::filesystem::path other = folder() / "trireme";
  std::filesystem::copy_file(program("trireme"), other);
  std::ofstream(other, std::ios::app) << '\n';
  const Rank well{program("trireme"), demo_model()};
  const CommandResult run = examine({{other, demo_model()}, well, well});
  EXPECT_EQ(run.exit_code, 1) << run.output;
  ASSERT_FALSE(problems(run).empty()) << run.output;
  for (const auto& problem : problems(run)) {
    EXPECT_EQ(problem["rank"], 0);
    EXPECT_EQ(problem["check"], "program");
  }
}

}  // namespace
}  // namespace trireme::testing
