// `trireme project` and launch/scaling/validate.sh as users run them.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/launch/command_fixture.h"

namespace trireme::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class ProjectCommandTest : public CommandFixture {
 protected:
  std::string shard(int size, double step_ms, const std::string& more = "") {
    nlohmann::json json{
        {"backend", "cuda"},
        {"compute_dtype", "bf16"},
        {"tensor_parallel_size", size},
        {"workload",
         {{"model", "models/seventy"},
          {"num_layers", 80},
          {"hidden_size", 8192},
          {"prompt_tokens", 512},
          {"max_step_tokens", 2048},
          {"shard_size", size > 1 ? size : 0}}},
        {"batches", {{{"batch", 1}, {"decode_step_ms", step_ms}, {"decode_step_ms_p99", step_ms * 1.1}}}}};
    if (!more.empty()) json.merge_patch(nlohmann::json::parse(more));
    return file("shard" + std::to_string(size) + std::to_string(++files_) + ".json", json.dump());
  }
  std::string fit(int ranks, const std::string& value) {
    return file("fit" + std::to_string(ranks) + std::to_string(++files_) + ".json",
                R"({"num_ranks": )" + std::to_string(ranks) +
                    R"(, "operations": [{"op": "broadcast", "fit": null},
                {"op": "all_reduce", "fit": )" +
                    value + "}]}");
  }

 private:
  int files_ = 0;
};

TEST_F(ProjectCommandTest, ShardsAndFitsGiveLabelledRanges) {
  const CommandOutcome outcome =
      trireme({"project", "--measured", shard(1, 40), "--measured", shard(8, 6), "--collectives",
               fit(8, R"({"alpha_us": 10, "beta_gb_s": 200, "rms_residual": 0.02})"), "--json"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
  const auto json = nlohmann::json::parse(outcome.standard_output, nullptr, false);
  ASSERT_TRUE(json.is_object()) << outcome.output;
  EXPECT_EQ(json["projected"], true);
  EXPECT_EQ(json["model"], "models/seventy");
  const auto& eight = json["points"][1];
  EXPECT_EQ(eight["projected"], true);
  const double step = 1.04 * (6 + 160 * (10e-3 + 16384 / 200e6));
  EXPECT_NEAR(eight["step_ms"]["central"].get<double>(), step, 1e-9);
  EXPECT_NEAR(eight["efficiency"]["central"].get<double>(), 40 / (8 * step), 1e-9);
  EXPECT_LT(eight["efficiency"]["low"], eight["efficiency"]["central"]);
  EXPECT_EQ(json["all_reduce"][0]["uncertainty"], 0.05);
}

TEST_F(ProjectCommandTest, PublishedCurvesServeWhereNothingWasMeasured) {
  const CommandOutcome outcome =
      trireme({"project", "--measured", shard(1, 40) + "," + shard(4, 11), "--gpu", "H200"});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_THAT(outcome.standard_output,
              AllOf(HasSubstr("PROJECTED, not measured"), HasSubstr("published points, nvlink4, 4 ranks")));
}

TEST_F(ProjectCommandTest, FilesThatDoNotFitAreNamed) {
  const auto says = [&](std::vector<std::string> arguments, const std::string& text) {
    arguments.insert(arguments.begin(), "project");
    const CommandOutcome outcome = trireme(arguments);
    EXPECT_EQ(outcome.exit_code, 2) << outcome.output;
    EXPECT_THAT(outcome.output, HasSubstr(text));
  };
  says({}, "give --measured or --score");
  says({"--measured", "/nowhere.json"}, "/nowhere.json");
  says({"--measured", shard(2, 5)}, "--collectives takes measurements");
  says({"--measured", shard(2, 5, R"({"workload": {"shard_size": 0}})")}, "wanted 2: a shard measured alone");
  says({"--measured", shard(1, 5), "--measured", shard(2, 3, R"({"backend": "cpu"})")},
       "another model, workload, backend");
  says({"--measured", shard(1, 5, R"({"workload": null})")}, "workload: got nothing, wanted an object");
  says({"--measured", shard(1, -5)}, "batches[0]: decode_step_ms: got -5");
  says({"--measured", file("x.json", "[1]")}, "x.json");
  const std::string two = shard(2, 5);
  says({"--measured", two, "--collectives", fit(2, "null")}, "fit: got nothing");
  says({"--measured", two, "--collectives", fit(2, R"({"alpha_us": 1, "beta_gb_s": 0})")},
       "beta_gb_s: got 0");
  says({"--measured", two, "--gpu", "H2000"}, "nearest are H200");
}

TEST_F(ProjectCommandTest, WhatTheBenchWritesCanBeRead) {
  std::vector<std::string> options = {"project", "--collectives",
                                      fit(2, R"({"alpha_us": 5, "beta_gb_s": 4})")};
  for (const char* shard : {"0/1", "1/2"}) {
    const CommandOutcome bench = trireme({"bench",
                                          "engine",
                                          "--model-config",
                                          TRIREME_SOURCE_DIR "/launch/demo-model/config.json",
                                          "--load-format",
                                          "dummy",
                                          "--backend",
                                          "cpu",
                                          "--threads",
                                          "1",
                                          "--batch",
                                          "1",
                                          "--prompt-tokens",
                                          "16",
                                          "--output-tokens",
                                          "4",
                                          "--repeats",
                                          "1",
                                          "--json",
                                          "--shard",
                                          shard});
    ASSERT_EQ(bench.exit_code, 0) << bench.output;
    options.insert(options.end(),
                   {"--measured", file(std::string("bench") + shard[2] + ".json", bench.standard_output)});
  }
  const CommandOutcome outcome = trireme(options);
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_THAT(outcome.standard_output, AllOf(HasSubstr("measured"), HasSubstr("projected")));
}

TEST_F(ProjectCommandTest, ValidatePrintsTheErrorOfEachPointAndTheirMedian) {
  const CommandOutcome outcome =
      run({TRIREME_SOURCE_DIR "/launch/scaling/validate.sh", "--build", TRIREME_BIN_DIR});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_THAT(outcome.standard_output,
              AllOf(HasSubstr("PREDICTED, not measured"), HasSubstr("median absolute error"),
                    HasSubstr("over 36 points"), HasSubstr("over the 8 held out"),
                    HasSubstr("no figure is fitted"), Not(HasSubstr("nan"))));
}

TEST_F(ProjectCommandTest, ValidateScoresSweepsNobodyLookedAt) {
  const CommandOutcome outcome =
      run({TRIREME_SOURCE_DIR "/launch/scaling/validate.sh", "--build", TRIREME_BIN_DIR, "--all"});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_THAT(outcome.standard_output,
              AllOf(HasSubstr("over the 33 held out"), HasSubstr("over the 25 held out"),
                    HasSubstr("over the 26 held out"), Not(HasSubstr("nan"))));
}

TEST_F(ProjectCommandTest, ValidateCountsErrorsRight) {
  const std::string header = "prompt_tokens,output_tokens,requests,tp_size,output_tokens_per_s\n";
  const auto score = [&](const std::string& rows) {
    const CommandOutcome outcome =
        run({TRIREME_SOURCE_DIR "/launch/scaling/validate.sh", "--build", TRIREME_BIN_DIR, "--score",
             file("sweep.csv", header + rows), "--json"});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
    return nlohmann::json::parse(outcome.standard_output, nullptr, false);
  };
  const double predicted = score("128,128,100,1,1\n")["points"][0]["predicted_tokens_per_s"];
  const auto row = [&](double factor) {
    return "128,128,100,1," + std::to_string(predicted * factor) + "\n";
  };
  const auto json = score(row(1) + row(2) + row(0.8));
  EXPECT_NEAR(json["points"][0]["error"].get<double>(), 0, 1e-6);
  EXPECT_NEAR(json["points"][1]["error"].get<double>(), -0.5, 1e-6);
  EXPECT_NEAR(json["points"][2]["error"].get<double>(), 0.25, 1e-6);
  EXPECT_NEAR(json["median_absolute_error"].get<double>(), 0.25, 1e-6);
  EXPECT_TRUE(json["median_absolute_error_held_out"].is_null());
  EXPECT_NEAR(json["mean_error"].get<double>(), -0.25 / 3, 1e-6);
  EXPECT_NEAR(json["worst_error"].get<double>(), -0.5, 1e-6);
}

}  // namespace
}  // namespace trireme::testing
