// What becomes of requests when a rank, a client or a deadline is gone.

#include <gtest/gtest.h>

#include <csignal>

#include "proto/support/errors.h"
#include "tests/e2e/service_fixture.h"

namespace trireme::testing {
namespace {

constexpr int kEndless = 90000;  // tokens: a minute on a fast machine

int running_requests(const v1::GetClusterResponse& cluster) {
  int count = 0;
  for (const auto& replica : cluster.replicas()) {
    count += replica.load().running_requests() + replica.load().waiting_requests() +
             replica.outstanding_requests();
  }
  return count;
}

int used_blocks(const v1::GetClusterResponse& cluster) {
  int count = 0;
  for (const auto& replica : cluster.replicas()) {
    count += replica.load().kv_blocks_total() - replica.load().kv_blocks_free();
  }
  return count;
}

class FailureE2eTest : public ServiceFixture {
 protected:
  void start_replicas(int count, std::vector<std::string> options = {}) {
    start_coordinator(std::move(options));
    for (int i = 0; i < count; ++i) start_job(2, {"--tensor-parallel", "2"}, endless_model());
    wait_serving(2 * count);
    stub_ = inference_stub();
  }

  /// The ranks of the job that runs the one request there is: it is the one that uses processor time.
  std::vector<Rank> busiest_job() {
    std::vector<Rank> all = ranks();
    std::map<pid_t, double> used;
    for (const Rank& rank : all) used[rank.session] -= read_process(rank.pid).cpu_seconds;
    const auto window = deadline_in(0.3);
    while (SteadyClock::now() < window) cluster();
    for (const Rank& rank : all) used[rank.session] += read_process(rank.pid).cpu_seconds;
    pid_t busiest = 0;
    for (const auto& [session, seconds] : used) {
      if (busiest == 0 || seconds > used[busiest]) busiest = session;
    }
    std::erase_if(all, [&](const Rank& rank) { return rank.session != busiest; });
    return all;
  }

  void expect_everything_freed() {
    wait_for_cluster(
        "no request and no block in use",
        [](const v1::GetClusterResponse& cluster) {
          return running_requests(cluster) == 0 && used_blocks(cluster) == 0;
        },
        10);
  }

  std::unique_ptr<v1::Inference::Stub> stub_;
};

TEST_F(FailureE2eTest, WithoutResumesAKilledRankEndsItsStream) {
  start_replicas(2, {"--max-resumes", "0"});
  Stream stream(*stub_, greedy_request("In the beginning", kEndless));
  ASSERT_TRUE(stream.read_tokens(3));
  const std::vector<Rank> job = busiest_job();
  ASSERT_EQ(job.size(), 2);
  // A job that dies may leave Open MPI's shared memory behind; serve.sh is there to sweep it.
  shared_memory_may_stay_ = true;
  kill(job[0].pid, SIGKILL);

  const grpc::Status status = stream.finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE) << status.error_message();
  const auto info = rpc::error_info(status);
  ASSERT_TRUE(info) << status.error_message();
  const std::vector<int> tokens = stream.token_ids();
  EXPECT_EQ(info->metadata().at("tokens_sent"), std::to_string(tokens.size()));

  wait_for_cluster("the dead replica is gone",
                   [](const auto& cluster) { return cluster.replicas_size() == 1; });
  const CommandResult run = generate({"--prompt", "In the beginning", "--max-tokens", "32", "--ignore-eos"});
  ASSERT_EQ(run.exit_code, 0) << run.output;
  // Greedy tokens do not depend on which replica made them.
  ASSERT_GE(tokens.size(), 3);
  for (size_t i = 0; i < std::min<size_t>(tokens.size(), 32); ++i) {
    EXPECT_EQ(run.json["token_ids"][i], tokens[i]) << i;
  }
}

TEST_F(FailureE2eTest, AllReplicasGoneIsUnavailableWithARetryDelay) {
  start_coordinator();
  const CommandResult run = generate({"--prompt", "x"});
  EXPECT_EQ(run.exit_code, 3) << run.output;
  EXPECT_EQ(run.json["error"]["code"], "UNAVAILABLE") << run.output;
  EXPECT_GT(run.json["error"].value("retry_delay_ms", 0), 0) << run.output;
}

TEST_F(FailureE2eTest, AVanishedClientFreesItsRequest) {
  start_replicas(1);
  Process& client = start({program("trireme"), "generate", "--address", address(), "--prompt",
                           "In the beginning", "--max-tokens", std::to_string(kEndless), "--ignore-eos"});
  wait_for_cluster("the request runs", [](const auto& cluster) { return running_requests(cluster) > 0; });
  client.signal(SIGKILL);
  expect_everything_freed();
}

TEST_F(FailureE2eTest, CtrlCCancelsTheRequest) {
  start_replicas(1);
  Process& client = start({program("trireme"), "generate", "--address", address(), "--prompt",
                           "In the beginning", "--max-tokens", std::to_string(kEndless), "--ignore-eos"});
  wait_for_cluster("the request runs", [](const auto& cluster) { return running_requests(cluster) > 0; });
  client.signal(SIGINT);
  EXPECT_EQ(client.wait(deadline_in(20)), 130) << client.output();
  expect_everything_freed();
}

TEST_F(FailureE2eTest, APassedDeadlineFreesItsRequest) {
  start_replicas(1);
  const CommandResult run = generate({"--prompt", "In the beginning", "--max-tokens",
                                      std::to_string(kEndless), "--ignore-eos", "--timeout", "0.5"});
  EXPECT_EQ(run.exit_code, 4) << run.output;
  EXPECT_EQ(run.json["error"]["code"], "DEADLINE_EXCEEDED") << run.output;
  expect_everything_freed();
}

TEST_F(FailureE2eTest, CancelEndsARequestByItsId) {
  start_replicas(1);
  v1::GenerateRequest request = greedy_request("In the beginning", kEndless);
  request.set_request_id("to-be-cancelled");
  Stream stream(*stub_, request);
  ASSERT_TRUE(stream.read_tokens(2));
  Stream twin(*stub_, request);
  EXPECT_EQ(twin.finish().error_code(), grpc::StatusCode::ALREADY_EXISTS);
  const CommandResult cancel =
      run_trireme({"cancel", "--address", address(), "--request-id", "to-be-cancelled"});
  EXPECT_EQ(cancel.exit_code, 0) << cancel.output;
  stream.finish();
  expect_everything_freed();
  // Idempotent: what does not run is no error.
  EXPECT_EQ(run_trireme({"cancel", "--address", address(), "--request-id", "to-be-cancelled"}).exit_code, 0);
}

TEST_F(FailureE2eTest, ASecondJobJoinsWhileTheFirstServes) {
  start_replicas(1);
  Stream first(*stub_, greedy_request("In the beginning", kEndless));
  ASSERT_TRUE(first.read_tokens(3));
  start_job(2, {"--tensor-parallel", "2"}, endless_model());
  wait_serving(4);
  Stream second(*stub_, greedy_request("In the beginning", kEndless));
  ASSERT_TRUE(second.read_tokens(3));
  // The least loaded replica took it.
  const v1::GetClusterResponse now = cluster();
  ASSERT_EQ(now.replicas_size(), 2);
  for (const auto& replica : now.replicas())
    EXPECT_EQ(replica.outstanding_requests(), 1) << now.DebugString();
  EXPECT_TRUE(first.read_tokens(first.num_tokens() + 1)) << "the first stream was disturbed";
}

TEST_F(FailureE2eTest, AJobWithoutItsCoordinatorGivesUpInTheEnd) {
  Process& coordinator = start_coordinator();
  Process& job = start_job(4, {"--tensor-parallel", "2", "--coordinator-timeout", "1"});
  wait_serving(4);
  coordinator.signal(SIGKILL);
  shared_memory_may_stay_ = true;  // mpirun kills what the ranks that gave up have left
  EXPECT_EQ(job.wait(deadline_in(30)), 69) << job.output();
  EXPECT_NE(job.output().find("for 1000 ms"), std::string::npos) << job.output();
  EXPECT_TRUE(ranks().empty());
}

TEST_F(FailureE2eTest, OneJobOfSeveralReplicasServesThemAll) {
  start_coordinator();
  start_job(4, {"--tensor-parallel", "2"}, endless_model());
  wait_serving(4);
  EXPECT_EQ(cluster().replicas_size(), 2);
  stub_ = inference_stub();
  Stream first(*stub_, greedy_request("In the beginning", kEndless));
  Stream second(*stub_, greedy_request("In the beginning", kEndless));
  ASSERT_TRUE(first.read_tokens(8));
  ASSERT_TRUE(second.read_tokens(8));
  for (size_t i = 0; i < 8; ++i) EXPECT_EQ(first.token_ids()[i], second.token_ids()[i]) << i;
  const v1::GetClusterResponse now = cluster();
  for (const auto& replica : now.replicas())
    EXPECT_EQ(replica.outstanding_requests(), 1) << now.DebugString();
}

}  // namespace
}  // namespace trireme::testing
