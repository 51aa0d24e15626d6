// A rank is killed; the client's stream is that of an unbroken run, to the last byte.

#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <map>
#include <string>

#include "tests/e2e/service_fixture.h"

namespace trireme::testing {
namespace {

constexpr int kTokens = 800;  // long enough for a rank to be found and killed in the middle

/// Sampled, with penalties, logprobs and a stop string that often half matches: whatever depends on what came
/// before shows.
v1::GenerateRequest sampled_request(const std::string& prompt) {
  v1::GenerateRequest request;
  request.set_text(prompt);
  request.mutable_sampling()->set_temperature(0.9f);
  request.mutable_sampling()->set_seed(20261120);
  request.mutable_stopping()->set_max_tokens(kTokens);
  request.mutable_stopping()->set_ignore_eos(true);
  request.mutable_sampling()->set_repetition_penalty(1.05f);
  request.mutable_sampling()->set_frequency_penalty(0.05f);
  request.mutable_stopping()->add_stop(" the end of the text");
  request.mutable_output()->set_logprobs(2);
  return request;
}

std::string long_prompt(size_t num_bytes) {
  std::string prompt;
  while (prompt.size() < num_bytes) prompt += "And the king said unto them, Go ye and bring the ark. ";
  return prompt;
}

/// What may differ between runs: the id, and where cached tokens were found.
std::string comparable(v1::GenerateOnceResponse result) {
  result.mutable_prompt()->clear_request_id();
  result.mutable_prompt()->clear_num_cached_tokens();
  result.mutable_usage()->clear_cached_tokens();
  return result.DebugString();
}

/// 0: the leader, 1: its follower.
class FailoverE2eTest : public ServiceFixture, public ::testing::WithParamInterface<int> {
 protected:
  void start_service() {
    start_coordinator();
    start_replica();
    stub_ = inference_stub();
    // A job that dies may leave Open MPI's shared memory behind; serve.sh is there to sweep it.
    shared_memory_may_stay_ = true;
  }

  /// One more, and which processes it has.
  void start_replica() {
    const int others = cluster().replicas_size();
    start_job(2, {"--tensor-parallel", "2"}, endless_model());
    wait_serving(2 * (others + 1));
    const v1::GetClusterResponse now = cluster();
    for (const auto& replica : now.replicas()) {
      if (sessions_.count(replica.replica_id()) > 0) continue;
      for (const Rank& rank : ranks()) {
        const bool known = std::any_of(sessions_.begin(), sessions_.end(),
                                       [&](const auto& session) { return session.second == rank.session; });
        if (!known) sessions_[replica.replica_id()] = rank.session;
      }
    }
  }

  std::string run_unbroken(const v1::GenerateRequest& request) {
    Stream stream(*stub_, request);
    const grpc::Status status = stream.finish();
    EXPECT_TRUE(status.ok()) << status.error_message();
    return comparable(stream.result());
  }

  static void kill_now(pid_t pid) {
    if (pid != 0) kill(pid, SIGKILL);  // 0 would be this test, too
  }

  /// The rank in question, of the replica that runs the one request there is.
  pid_t find_victim() {
    pid_t session = 0, victim = 0;
    wait_for_cluster("a request runs", [&](const v1::GetClusterResponse& now) {
      for (const auto& replica : now.replicas()) {
        if (replica.outstanding_requests() > 0) session = sessions_.at(replica.replica_id());
      }
      return session != 0;
    });
    for (const Rank& rank : ranks()) {
      if (rank.session == session && rank.rank == GetParam()) victim = rank.pid;
    }
    EXPECT_NE(victim, 0);
    return victim;
  }

  /// Kills a rank when so many tokens were read, and expects the stream of an unbroken run. Whether it was
  /// resumed.
  bool kill_after(int num_samples, int num_tokens) {
    start_replica();
    // New to every cache, and long enough that the replica is found before the first token.
    v1::GenerateRequest request =
        sampled_request(std::to_string(++num_kills_) + "." + std::to_string(num_tokens) + long_prompt(4000));
    request.mutable_output()->set_n(num_samples);
    const int64_t resumed = cluster().requests_resumed();
    Stream stream(*stub_, request);
    const pid_t victim = find_victim();
    EXPECT_TRUE(stream.read_tokens(num_tokens));
    kill_now(victim);
    const grpc::Status status = stream.finish();
    EXPECT_TRUE(status.ok()) << status.error_message() << " after " << num_tokens;
    EXPECT_EQ(comparable(stream.result()), run_unbroken(request)) << "killed after " << num_tokens;
    await_dead_job();
    wait_for_cluster("the dead replica is gone",
                     [](const v1::GetClusterResponse& now) { return now.replicas_size() == 1; });
    const int64_t more = cluster().requests_resumed() - resumed;
    EXPECT_LE(more, 1);
    return more == 1;
  }

  std::unique_ptr<v1::Inference::Stub> stub_;
  std::map<std::string, pid_t> sessions_;  // by replica id
  int num_kills_ = 0;
};

TEST_P(FailoverE2eTest, KilledBetweenTokensItsStreamIsUnbroken) {
  start_service();
  for (const auto& [num_samples, num_tokens] :
       {std::pair{1, 1}, {1, 2}, {1, kTokens / 2}, {3, kTokens}, {1, kTokens - 1}}) {
    // On a busy machine a stream may be over before who reads it comes to kill: then once more.
    bool resumed = false;
    for (int attempt = 0; attempt < 5 && !resumed; ++attempt) {
      resumed = kill_after(num_samples, num_tokens);
      if (HasFailure() || num_tokens == kTokens - 1) break;
    }
    if (num_tokens != kTokens - 1) {
      EXPECT_TRUE(resumed) << "after " << num_tokens << " of " << num_samples;
    }
  }
  EXPECT_EQ(cluster().requests_failed(), 0);
}

TEST_P(FailoverE2eTest, KilledInPrefillItsStreamIsUnbroken) {
  start_service();
  const v1::GenerateRequest request = sampled_request(long_prompt(24'000));
  start_replica();
  Stream stream(*stub_, request, 120);
  wait_for_cluster("it runs", [](const v1::GetClusterResponse& now) {
    return now.replicas(0).load().running_requests() + now.replicas(1).load().running_requests() > 0;
  });
  const pid_t victim = find_victim();
  EXPECT_EQ(stream.num_tokens(), 0) << "its prefill was over too soon";
  kill_now(victim);
  const grpc::Status status = stream.finish();
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(cluster().requests_resumed(), 1);
  EXPECT_EQ(comparable(stream.result()), run_unbroken(request));
}

INSTANTIATE_TEST_SUITE_P(LeaderAndFollower, FailoverE2eTest, ::testing::Values(0, 1));

}  // namespace
}  // namespace trireme::testing
