// Ranks and replicas on several hosts: real mpirun, real TCP, cables that are pulled.

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <set>

#include "tests/e2e/virtual_hosts.h"

namespace trireme::testing {
namespace {

constexpr int kEndless = 90000;  // tokens: a minute on a fast machine
constexpr const char* kPrompts[] = {"In the beginning", "And the king said"};
constexpr double kPromise = 10;  // seconds in which a replica without network ends

class MultiHostTest : public VirtualHostsFixture {
 protected:
  /// Starts launch/serve.sh on the first of the hosts.
  Process& start_script(const std::vector<std::pair<std::string, int>>& slots,
                        std::vector<std::string> options) {
    std::ofstream hostfile(folder() / "hosts");
    for (const auto& [host, count] : slots) hostfile << address_of(host) << " slots=" << count << "\n";
    hostfile.close();
    const std::string& first = slots.front().first;
    std::vector<std::string> command = {source("launch/serve.sh"),
                                        "--build",
                                        program("trireme").parent_path(),
                                        "--backend",
                                        "cpu",
                                        "--compute-dtype",
                                        "f32",
                                        "--threads",
                                        "1",
                                        "--port",
                                        "0",
                                        "--network",
                                        kNetwork,
                                        "--listen",
                                        address_of(first),
                                        "--insecure",
                                        "--hostfile",
                                        folder() / "hosts",
                                        "--rsh-agent",
                                        rsh_agent(),
                                        "--worker-option=--kv-memory",
                                        "--worker-option=512MiB",
                                        "--run-dir",
                                        folder() / "run"};
    command.insert(command.end(), options.begin(), options.end());
    return start(on(first, command));
  }

  /// Waits until the service is ready, and calls there from then on.
  Process& serve(const std::vector<std::pair<std::string, int>>& slots, std::vector<std::string> options) {
    Process& server = start_script(slots, std::move(options));
    if (!server.wait_for_output("logs in", deadline_in(60))) throw std::runtime_error(server.output());
    const std::string output = server.standard_output();
    set_address(output.substr(6, output.find(' ', 6) - 6));
    stub_ = inference_stub();
    return server;
  }

  /// The hosts of each replica's ranks.
  std::set<std::multiset<std::string>> layout() {
    std::set<std::multiset<std::string>> result;
    const v1::GetClusterResponse now = cluster();
    for (const v1::ReplicaStatus& replica : now.replicas()) {
      std::multiset<std::string> hosts;
      for (const v1::RankInfo& rank : replica.ranks()) hosts.insert(rank.host());
      result.insert(hosts);
    }
    return result;
  }

  std::vector<int> unbroken(const v1::GenerateRequest& request) {
    Stream stream(*stub_, request);
    const grpc::Status status = stream.finish();
    EXPECT_TRUE(status.ok()) << status.error_message();
    return stream.token_ids();
  }

  /// Whether the one request there is runs on a replica that has a rank on `host`.
  bool runs_on(const std::string& host) {
    bool found = false;
    wait_for_cluster("the request runs", [&](const v1::GetClusterResponse& now) {
      bool runs = false;
      for (const v1::ReplicaStatus& replica : now.replicas()) {
        if (replica.outstanding_requests() == 0) continue;
        runs = true;
        for (const v1::RankInfo& rank : replica.ranks()) found = found || rank.host() == host;
      }
      return runs;
    });
    return found;
  }

  /// Runs a stream on each of two replicas, pulls the cable of `host` in the middle, and expects one replica
  /// to be gone in time, and its stream to go on on the other.
  void cut_off(const std::string& host) {
    streams_[0] = std::make_unique<Stream>(*stub_, greedy_request(kPrompts[0], kEndless));
    ASSERT_TRUE(streams_[0]->read_tokens(3)) << streams_[0]->finish().error_message();
    cut_ = runs_on(host) ? 0 : 1;
    streams_[1] = std::make_unique<Stream>(*stub_, greedy_request(kPrompts[1], kEndless));
    ASSERT_TRUE(streams_[1]->read_tokens(3)) << streams_[1]->finish().error_message();
    const v1::GetClusterResponse both = cluster();
    for (const v1::ReplicaStatus& replica : both.replicas())
      ASSERT_EQ(replica.outstanding_requests(), 1) << replica.DebugString();
    set_link(host, false);
    wait_for_cluster(
        "the replica is gone", [](const auto& now) { return now.replicas_size() == 1; }, kPromise);
    wait_for_cluster("its request goes on", [](const auto& now) {
      return now.replicas_size() == 1 && now.replicas(0).load().resumed_requests() == 1;
    });
  }

  void expect_streams_unbroken() {
    Stream& resumed = *streams_[cut_];
    // What is under way between coordinator and client is far less than this.
    const int enough = resumed.num_tokens() + 300, other = streams_[1 - cut_]->num_tokens() + 1;
    ASSERT_TRUE(resumed.read_tokens(enough)) << resumed.finish().error_message();
    ASSERT_TRUE(streams_[1 - cut_]->read_tokens(other)) << streams_[1 - cut_]->finish().error_message();
    const std::vector<int> got[] = {beginning(resumed.token_ids(), enough),
                                    beginning(streams_[1 - cut_]->token_ids(), 100)};
    streams_[0].reset();
    streams_[1].reset();
    EXPECT_EQ(got[0], unbroken(greedy_request(kPrompts[cut_], enough)));
    EXPECT_EQ(got[1], unbroken(greedy_request(kPrompts[1 - cut_], 100)));
    EXPECT_EQ(cluster().requests_failed(), 0);
  }

  static std::vector<int> beginning(const std::vector<int>& tokens, int count) {
    return {tokens.begin(), tokens.begin() + std::min<ptrdiff_t>(count, std::ssize(tokens))};
  }

  std::unique_ptr<v1::Inference::Stub> stub_;
  std::unique_ptr<Stream> streams_[2];
  int cut_ = 0;  // which of them lost its replica
};

TEST_F(MultiHostTest, TensorParallelRanksOnTwoHostsSayWhatOneSays) {
  add_hosts({"alpha", "beta"});
  serve({{"alpha", 1}, {"beta", 1}}, {"--model", demo_model(), "--tensor-parallel", "2"});
  EXPECT_EQ(layout(), (std::set<std::multiset<std::string>>{{"alpha", "beta"}}));
  const int64_t before = bytes_through("beta");
  const v1::GenerateRequest request = greedy_request("In the beginning", 64);
  const std::vector<int> tokens = unbroken(request);
  EXPECT_EQ(tokens.size(), 64);
  // Two sums in each of 5 layers for each token, of 256 floats, to beta and from it.
  EXPECT_GE(bytes_through("beta") - before, 64 * 5 * 2 * 256 * 4 * 2);

  set_address("");
  Process& alone = start({program("trireme-worker"), "--model", demo_model(), "--compute-dtype", "f32",
                          "--threads", "1", "--kv-memory", "64MiB"});
  const std::string said = "listening on ";
  ASSERT_TRUE(alone.wait_for_output("tensor-parallel size", deadline_in(30))) << alone.output();
  const std::string output = alone.output();
  const size_t place = output.find(said) + said.size();
  set_address(output.substr(place, output.find(": ", place) - place));
  stub_ = inference_stub();
  EXPECT_EQ(unbroken(request), tokens);
}

TEST_F(MultiHostTest, AReplicasHostIsCutOffAndComesBack) {
  add_hosts({"alpha", "beta"});
  serve({{"alpha", 1}, {"beta", 1}},
        {"--model", endless_model(), "--tensor-parallel", "1", "--replicas", "2"});
  EXPECT_EQ(layout(), (std::set<std::multiset<std::string>>{{"alpha"}, {"beta"}}));
  const int64_t before = bytes_through("beta");
  ASSERT_NO_FATAL_FAILURE(cut_off("beta"));
  set_link("beta", true);
  expect_streams_unbroken();
  EXPECT_GT(bytes_through("beta"), before);
  wait_for_cluster(
      "the replica is back", [](const auto& now) { return now.replicas_size() == 2; }, 60);
  EXPECT_EQ(layout(), (std::set<std::multiset<std::string>>{{"alpha"}, {"beta"}}));
}

TEST_F(MultiHostTest, AReplicaOnTwoHostsLosesOneOfThem) {
  add_hosts({"alpha", "beta", "gamma"});
  // A replica that fits on one host lies there, whatever the order of the slots.
  serve({{"beta", 1}, {"alpha", 2}, {"gamma", 1}},
        {"--model", endless_model(), "--tensor-parallel", "2", "--replicas", "2"});
  EXPECT_EQ(layout(), (std::set<std::multiset<std::string>>{{"alpha", "alpha"}, {"beta", "gamma"}}));
  ASSERT_NO_FATAL_FAILURE(cut_off("gamma"));
  const auto deadline = deadline_in(kPromise);
  for (const ProcessEntry& worker : workers_on("gamma")) EXPECT_TRUE(wait_until_gone(worker.pid, deadline));
  expect_streams_unbroken();
}

TEST_F(MultiHostTest, AHostThatStaysCutOffIsLeftByItsRanks) {
  add_hosts({"alpha", "beta"});
  serve({{"alpha", 1}, {"beta", 1}}, {"--model", demo_model(), "--tensor-parallel", "1", "--replicas", "2",
                                      "--worker-option=--coordinator-timeout=5"});
  const std::vector<ProcessEntry> workers = workers_on("beta");
  ASSERT_FALSE(workers.empty());
  set_link("beta", false);
  // Four seconds until it is noticed, five of patience.
  const auto deadline = deadline_in(30);
  for (const ProcessEntry& worker : workers) EXPECT_TRUE(wait_until_gone(worker.pid, deadline));
}

TEST_F(MultiHostTest, TheDoctorSeesBothHosts) {
  add_hosts({"alpha", "beta"});
  const std::vector<std::string> options = {"--model", demo_model(), "--tensor-parallel", "2", "--check"};
  Process& well = start_script({{"alpha", 1}, {"beta", 1}}, options);
  EXPECT_EQ(well.wait(deadline_in(60)), 0) << well.output();
  for (const char* part : {"rank 0 on host alpha", "rank 1 on host beta", "eth0 10.77.0.2/24",
                           "1 links between hosts", "NCCL: skipped (--backend cpu)", "2 ranks, 0 problems"})
    EXPECT_NE(well.output().find(part), std::string::npos) << part << "\n" << well.output();
}

}  // namespace
}  // namespace trireme::testing

int main(int argc, char** argv) {
  trireme::testing::VirtualHostsFixture::leave_network();
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
