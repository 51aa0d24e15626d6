// trireme doctor under a real mpirun, with a rank that is broken on purpose.

#include <gtest/gtest.h>

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
  CommandResult examine(const std::vector<Rank>& ranks) {
    std::vector<std::string> command = {"mpirun", "--oversubscribe", "--bind-to", "none", "--mca",
                                        "btl",    "self,vader",      "--quiet"};
    for (const Rank& rank : ranks) {
      if (&rank != &ranks.front()) command.push_back(":");
      command.insert(command.end(), {"-np", "1", rank.program, "doctor", "--json", "--model", rank.model});
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
