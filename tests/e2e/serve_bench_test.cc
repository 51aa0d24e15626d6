// trireme bench serve against a coordinator and two replicas.

#include <signal.h>

#include <gmock/gmock.h>

#include <fstream>

#include "tests/e2e/service_fixture.h"

namespace trireme::testing {
namespace {

using nlohmann::json;

class ServeBenchTest : public ServiceFixture {
 protected:
  void start_two_replicas(std::vector<std::string> options = {}) {
    start_coordinator();
    for (int i = 0; i < 2; ++i) start_job(1, options);
    wait_serving(2);
  }
  CommandResult bench(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"bench", "serve", "--address", address(), "--json", "-"});
    return run_trireme(arguments);
  }
  /// What `trireme status --json` says, once nothing runs or waits any more.
  json settled_status() {
    wait_for_cluster("every replica idle", [](const v1::GetClusterResponse& cluster) {
      for (const auto& replica : cluster.replicas()) {
        const v1::ReplicaLoad& load = replica.load();
        if (load.running_requests() + load.waiting_requests() != 0) return false;
        if (load.kv_blocks_free() != load.kv_blocks_total()) return false;
      }
      return cluster.replicas_size() > 0;
    });
    return run_trireme({"status", "--address", address(), "--json"}).json;
  }
};

TEST_F(ServeBenchTest, TheReportAddsUp) {
  start_two_replicas();
  const CommandResult result = bench({"--dataset", "prefix:24,8,10,2", "--concurrency", "4", "--requests",
                                      "24", "--seed", "3", "--goodput", "e2e:60000"});
  ASSERT_EQ(result.exit_code, 0) << result.output;
  const json& report = result.json;
  EXPECT_EQ(report["requests"], 24);
  EXPECT_EQ(report["ok"], 24);
  EXPECT_EQ(report["errors"], 0);
  EXPECT_EQ(report["wrong_lengths"], 0);
  EXPECT_EQ(report["output_tokens"], 240);
  EXPECT_EQ(report["prompt_tokens"], 24 * 32);
  EXPECT_EQ(report["num_replicas"], 2);
  EXPECT_EQ(report["ttft_ms"]["count"], 24);
  EXPECT_EQ(report["itl_ms"]["count"], 24 * 9);
  EXPECT_EQ(report["tpot_ms"]["count"], 24);
  EXPECT_EQ(report["e2e_ms"]["count"], 24);
  EXPECT_EQ(report["goodput"]["good"], 24);
  EXPECT_GT(report["cached_tokens"], 0);
  for (const char* metric : {"ttft_ms", "itl_ms", "tpot_ms", "e2e_ms"}) {
    EXPECT_LE(report[metric]["p50"], report[metric]["p95"]);
    EXPECT_LE(report[metric]["p95"], report[metric]["p99"]);
    EXPECT_LE(report[metric]["p99"], report[metric]["max"]);
  }
  EXPECT_GT(report["null_server"]["output_tokens_per_s"], 0);
  settled_status();
}

TEST_F(ServeBenchTest, AboveCapacityNothingFailsButForLackOfRoomAndAllIsFreeAfterwards) {
  start_two_replicas({"--max-num-seqs", "2", "--max-queued-requests", "2"});
  const CommandResult result = bench({"--dataset", "random:16,64", "--rate", "3000", "--requests", "300"});
  ASSERT_EQ(result.exit_code, 0) << result.output;
  const json& report = result.json;
  const int64_t ok = report["ok"], errors = report["errors"];
  EXPECT_EQ(ok + errors, 300);
  EXPECT_GT(ok, 0);
  EXPECT_GT(errors, 0) << "the rate was not above what the replicas can do";
  EXPECT_EQ(report["errors_by_code"], (json{{"RESOURCE_EXHAUSTED", errors}}));
  EXPECT_EQ(report["output_tokens"], 64 * ok);
  const json status = settled_status();
  ASSERT_EQ(status["cluster"]["replicas"].size(), 2u);
  for (const json& replica : status["cluster"]["replicas"]) {
    EXPECT_EQ(replica["load"]["running_requests"], 0);
    EXPECT_EQ(replica["load"]["waiting_requests"], 0);
    EXPECT_EQ(replica["load"]["kv_blocks_free"], replica["load"]["kv_blocks_total"]);
  }
  EXPECT_EQ(bench({"--dataset", "random:16,64", "--rate", "3000", "--requests", "300", "--strict"}).exit_code,
            3);
}

TEST_F(ServeBenchTest, AnInterruptReportsWhatWasMeasured) {
  start_coordinator();
  start_job(1, {}, endless_model());
  wait_serving(1);
  Process& process = start({program("trireme"), "bench", "serve", "--address", address(), "--dataset",
                            "random:16,50000", "--concurrency", "2", "--requests", "5", "--json", "-"});
  wait_for_cluster("two requests running", [](const v1::GetClusterResponse& cluster) {
    return cluster.replicas(0).load().running_requests() == 2;
  });
  kill(process.pid(), SIGINT);
  EXPECT_EQ(process.wait(deadline_in(20)), 130) << process.output();
  const json report = json::parse(process.standard_output(), nullptr, false);
  ASSERT_FALSE(report.is_discarded()) << process.output();
  EXPECT_EQ(report["interrupted"], 2);
  EXPECT_EQ(report["not_started"], 3);
  EXPECT_EQ(report["errors"], 0);
  settled_status();
}

TEST_F(ServeBenchTest, ConversationsAreAskedAsTextWithAnswersOfTheirLength) {
  start_two_replicas();
  const std::string file = folder() / "conversations.json";
  std::ofstream(file) << R"([{"conversations": [{"from": "human", "value": "Good morning to you, sir."},
                              {"from": "gpt", "value": "And a good morning to you."}]},
                             {"conversations": [{"value": "Speak"}, {"value": "I will speak no more."}]}])";
  const CommandResult result =
      bench({"--dataset", "sharegpt:" + file, "--requests", "6", "--no-null-server"});
  ASSERT_EQ(result.exit_code, 0) << result.output;
  EXPECT_EQ(result.json["ok"], 6);
  EXPECT_EQ(result.json["wrong_lengths"], 0);
  EXPECT_FALSE(result.json.contains("null_server"));
  const CommandResult broken = bench({"--dataset", "sharegpt:" + program("trireme").string()});
  EXPECT_EQ(broken.exit_code, 2);
  EXPECT_THAT(broken.output, ::testing::HasSubstr("not JSON at byte"));
  EXPECT_EQ(bench({"--dataset", "random:100000,1"}).exit_code, 2);
}

}  // namespace
}  // namespace trireme::testing
