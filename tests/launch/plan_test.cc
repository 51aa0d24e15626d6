// `trireme plan` as users run it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/launch/command_fixture.h"

namespace trireme::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class PlanCommandTest : public CommandFixture {};

TEST_F(PlanCommandTest, ShowsLayoutsAndWhyOthersAreRefused) {
  const CommandOutcome result = trireme({"plan", "--model-name", "Llama-3.1-70B", "--gpu", "H100-SXM"});
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.standard_output,
              AllOf(HasSubstr("Llama-3.1-70B (70.55 B parameters)"),
                    HasSubstr("TP1 x DP1     refused: does not fit"), HasSubstr("TP8 x DP1"),
                    HasSubstr("estimates, nothing was measured"), HasSubstr("best for throughput"),
                    HasSubstr("its rank 0, GiB: weights 16.4"), HasSubstr("communicator 0.39"),
                    HasSubstr("assumed:"), HasSubstr("3.99 USD per device and hour")));
}

TEST_F(PlanCommandTest, JsonSaysTheSame) {
  const CommandOutcome result =
      trireme({"plan", "--model-config", TRIREME_SOURCE_DIR "/tests/bench/models/llama-3.1-70b.json", "--gpu",
               "h200", "--devices", "1,2", "--dtype", "fp8", "--kv-dtype", "fp8", "--price", "2", "--target",
               "latency", "--json", "-"});
  ASSERT_EQ(result.exit_code, 0) << result.output;
  const auto json = nlohmann::json::parse(result.standard_output, nullptr, false);
  ASSERT_TRUE(json.is_object()) << result.output;
  EXPECT_EQ(json["model"]["name"], "llama-3.1-70b");
  EXPECT_EQ(json["model"]["parameters"], 70553706496.0);
  EXPECT_EQ(json["usd_per_device_hour"], 2.0);
  EXPECT_TRUE(json["price_year"].is_null());
  ASSERT_EQ(json["layouts"].size(), 3u);  // TP1; TP1 and TP2 of two
  const auto& last = json["layouts"][2];
  EXPECT_EQ(last["tensor_parallel_size"], 2);
  EXPECT_EQ(last["refused"], nullptr);
  EXPECT_GT(last["throughput"]["usd_per_million_output_tokens"], 0.0);
  EXPECT_GT(last["bytes_per_rank"]["weights"], 35'000'000'000);
  EXPECT_EQ(json["best"], 2);
}

TEST_F(PlanCommandTest, AModelDirectoryAndAnInventoryWillDo) {
  const std::string inventory = file("hosts.csv", "host,gpu,devices\na,T4,2\nb,T4,2\n");
  const CommandOutcome result =
      trireme({"plan", "--model", TRIREME_SOURCE_DIR "/launch/demo-model", "--inventory", inventory});
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.standard_output,
              AllOf(HasSubstr("demo-model"), HasSubstr("TP1 x DP4"), HasSubstr("across hosts")));
  const CommandOutcome many =
      trireme({"plan", "--model-name", "Llama-3.2-1B", "--inventory", inventory, "--devices", "8"});
  EXPECT_EQ(many.exit_code, 2);
  EXPECT_THAT(many.output, HasSubstr("has 4"));
}

TEST_F(PlanCommandTest, UserTablesExtendTheProgramsOwn) {
  const std::string gpus =
      file("g.csv", "name,memory_gib,memory_bandwidth_gb_s,dense_bf16_tensor_tflops\nMyCard,48,1000,200\n");
  const std::string models = file("m.csv",
                                  "name,layers,hidden,intermediate,heads,kv_heads,head_dim,vocab,"
                                  "context\nMine,16,2048,8192,32,8,64,32000,8192\n");
  const CommandOutcome result = trireme(
      {"plan", "--model-name", "mine", "--gpu", "mycard", "--gpu-table", gpus, "--model-table", models});
  EXPECT_EQ(result.exit_code, 0) << result.output;
  const CommandOutcome list = trireme({"plan", "--list", "--gpu-table", gpus});
  EXPECT_THAT(list.standard_output,
              AllOf(HasSubstr("MyCard"), HasSubstr("B200"), HasSubstr("Llama-3.1-405B")));
  const std::string bad =
      file("bad.csv", "name,memory_gib,memory_bandwidth_gb_s,fp32_tflops\nA,8,1,1\nB,eight,1,1\n");
  const CommandOutcome fault = trireme({"plan", "--model-name", "mine", "--gpu", "A", "--gpu-table", bad});
  EXPECT_EQ(fault.exit_code, 2);
  EXPECT_THAT(fault.output, HasSubstr("bad.csv:3: column memory_gib: got 'eight'"));
}

TEST_F(PlanCommandTest, WrongNamesAndListsAreExplained) {
  const auto says = [](std::vector<std::string> arguments, const std::string& text) {
    arguments.insert(arguments.begin(), "plan");
    const CommandOutcome result = trireme(arguments);
    EXPECT_EQ(result.exit_code, 2) << result.output;
    EXPECT_THAT(result.output, HasSubstr(text));
  };
  says({"--model-name", "Llama-3.1-70", "--gpu", "H200"}, "nearest are Llama-3.1-70B");
  says({"--model-name", "Llama-3.1-70B", "--gpu", "H20O"}, "nearest are H20");
  says({"--model-name", "Llama-3.1-70B"}, "give one of --gpu and --inventory");
  says({"--gpu", "H200"}, "give one of --model, --model-config and --model-name");
  says({"--model-name", "Llama-3.1-70B", "--gpu", "H200", "--devices", "2,1"}, "got 1 after 2");
  says({"--model-name", "Llama-3.1-70B", "--gpu", "H200", "--devices", "0"}, "devices: got 0");
  says({"--model-name", "Llama-3.1-70B", "--gpu", "H200", "--dtype", "fp4"}, "--dtype: got 'fp4'");
  says({"--model", "/nowhere", "--gpu", "H200"}, "/nowhere/config.json");
  says({"--model-name", "Llama-3.1-70B", "--gpu", "H200", "--gpu-table", "/nowhere.csv"},
       "/nowhere.csv: no such file");
  says({"--model-name", "Llama-3.1-70B", "--gpu", "H200", "--json", "/nowhere/plan.json"},
       "cannot be written");
}

}  // namespace
}  // namespace trireme::testing
