#include <atomic>
#include <numeric>
#include <thread>

#include <gtest/gtest.h>

#include "tests/coordinator/test_cluster.h"

namespace trireme {
namespace {

TEST(FrontendTest, RelaysEverythingInOrder) {
  TestCluster cluster;
  const auto a = cluster.join("a", send_tokens(500));
  Stream stream(*cluster.inference, token_request());
  const grpc::Status status = stream.finish();
  ASSERT_TRUE(status.ok()) << status.error_message();
  std::vector<int32_t> wanted(500);
  std::iota(wanted.begin(), wanted.end(), 0);
  EXPECT_EQ(stream.tokens, wanted);
  EXPECT_EQ(stream.text.substr(0, 9), "t0 t1 t2 ");
  EXPECT_EQ(stream.finish_reason, v1::FINISH_REASON_LENGTH);
}

TEST(FrontendTest, FixesIdAndSeedBeforeTheReplicaSeesThem) {
  TestCluster cluster;
  const auto a = cluster.join("a");
  v1::GenerateRequest request = token_request();
  request.mutable_sampling()->set_temperature(0.5f);
  Stream first(*cluster.inference, request);
  Stream second(*cluster.inference, request);
  ASSERT_TRUE(first.finish().ok());
  ASSERT_TRUE(second.finish().ok());
  EXPECT_EQ(first.prompt.request_id().size(), 32u);
  EXPECT_NE(first.prompt.request_id(), second.prompt.request_id());
  EXPECT_NE(first.prompt.seed(), second.prompt.seed());

  request.set_request_id("mine");
  request.mutable_sampling()->set_seed(42);
  Stream third(*cluster.inference, request);
  ASSERT_TRUE(third.finish().ok());
  const v1::GenerateRequest seen = a->replica.requests().back();
  EXPECT_EQ(seen.request_id(), "mine");
  EXPECT_EQ(seen.sampling().seed(), 42u);
  EXPECT_EQ(seen.sampling().temperature(), 0.5f);
}

TEST(FrontendTest, NewRequestsGoToTheLeastLoadedReplica) {
  TestCluster cluster;
  FakeReplica *self_a = nullptr, *self_b = nullptr;
  const auto a = cluster.join("a", send_then_wait(self_a, 1));
  self_a = &a->replica;
  std::vector<std::unique_ptr<Stream>> streams;
  const auto open = [&] {
    streams.push_back(std::make_unique<Stream>(*cluster.inference, token_request()));
    EXPECT_TRUE(streams.back()->read_tokens(1));
  };
  open();
  open();
  const auto b = cluster.join("b", send_then_wait(self_b, 1));  // joins while a serves
  self_b = &b->replica;
  open();
  open();
  EXPECT_EQ(a->replica.num_running(), 2);
  EXPECT_EQ(b->replica.num_running(), 2);
  v1::ReplicaReport report;
  report.mutable_load()->set_waiting_requests(5);
  ASSERT_TRUE(a->leader.report(report));
  ASSERT_TRUE(eventually([&] { return cluster.describe().replicas(0).load().waiting_requests() == 5; }));
  for (int i = 0; i < 4; ++i) open();
  EXPECT_EQ(a->replica.num_running(), 2);
  EXPECT_EQ(b->replica.num_running(), 6);
  for (const auto& stream : streams) stream->cancel();
}

TEST(FrontendTest, ReplicasComeAndGoWhileRequestsRun) {
  TestCluster cluster;
  const auto stay = cluster.join("stay", send_tokens(50));
  std::atomic<bool> over{false};
  std::atomic<int> succeeded{0}, failed{0};
  std::thread client([&] {
    while (!over) ++(generate_once(cluster, token_request()).ok() ? succeeded : failed);
  });
  for (int round = 0; round < 5; ++round) {
    const auto guest = cluster.join("guest" + std::to_string(round), send_tokens(50));
    EXPECT_TRUE(eventually([&] { return !guest->replica.requests().empty(); }));
    v1::ReplicaReport drained;
    drained.set_drained(true);  // takes nothing new, finishes what runs, leaves: nobody notices
    ASSERT_TRUE(guest->leader.report(drained));
    ASSERT_TRUE(eventually([&] {
      const v1::GetClusterResponse response = cluster.describe();
      for (const v1::ReplicaStatus& replica : response.replicas())
        if (replica.state() == v1::REPLICA_STATE_DRAINING) return replica.outstanding_requests() == 0;
      return false;
    }));
    EXPECT_TRUE(guest->leader.hang_up().ok());
  }
  over = true;
  client.join();
  EXPECT_GT(succeeded, 5);
  EXPECT_EQ(failed, 0);
}

TEST(FrontendTest, ForwardsWhatAReplicaKnows) {
  TestCluster cluster;
  const auto a = cluster.join("a");
  const auto b = cluster.join("b");
  grpc::ClientContext first, second, third;
  set_patience(first);
  set_patience(second);
  set_patience(third);
  v1::TokenizeRequest tokenize;
  tokenize.set_text("ab");
  v1::TokenizeResponse tokens;
  ASSERT_TRUE(cluster.inference->Tokenize(&first, tokenize, &tokens).ok());
  EXPECT_EQ(tokens.token_ids_size(), 2);
  v1::DetokenizeRequest detokenize;
  *detokenize.mutable_token_ids() = tokens.token_ids();
  v1::DetokenizeResponse text;
  ASSERT_TRUE(cluster.inference->Detokenize(&second, detokenize, &text).ok());
  EXPECT_EQ(text.text(), "ab");
  v1::GetModelResponse model;
  ASSERT_TRUE(cluster.inference->GetModel(&third, {}, &model).ok());
  EXPECT_EQ(model.name(), "demo");
  EXPECT_EQ(model.num_replicas(), 2);
  EXPECT_EQ(cluster.describe().replicas(0).outstanding_requests(), 0);
  EXPECT_EQ(cluster.describe().replicas(1).outstanding_requests(), 0);
}

}  // namespace
}  // namespace trireme
