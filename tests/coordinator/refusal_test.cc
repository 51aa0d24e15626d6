// Replicas that have no room.

#include <gtest/gtest.h>

#include "tests/coordinator/failover_scripts.h"

namespace trireme {
namespace {

FakeReplica::Script refuse(grpc::StatusCode code) {
  return [code](grpc::ServerContext&, const v1::GenerateRequest&, FakeReplica::Writer&) {
    return rpc::retry_after(code, "queue is full", std::chrono::milliseconds(1500));
  };
}

TEST(RefusalTest, RefusedRequestGoesToAReplicaWithRoom) {
  TestCluster cluster;
  const auto full = cluster.join("full", refuse(grpc::StatusCode::RESOURCE_EXHAUSTED));
  const auto draining = cluster.join("draining", refuse(grpc::StatusCode::UNAVAILABLE));
  const auto free = cluster.join("free", continue_to(kTokens));
  for (int i = 0; i < 12; ++i) EXPECT_TRUE(generate_once(cluster, token_request()).ok());
  EXPECT_EQ(free->replica.requests().size(), 12u);
  EXPECT_GE(full->replica.requests().size(), 1u);
  EXPECT_GE(draining->replica.requests().size(), 1u);
}

TEST(RefusalTest, FullReplicasOwnWordsReachTheClient) {
  TestCluster cluster;
  const auto a = cluster.join("a", refuse(grpc::StatusCode::RESOURCE_EXHAUSTED));
  const auto expect_refusal = [&] {
    const grpc::Status status = generate_once(cluster, token_request());
    EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
    ASSERT_TRUE(rpc::retry_info(status));
    EXPECT_EQ(rpc::retry_info(status)->retry_delay().seconds(), 1);
  };
  expect_refusal();
  EXPECT_EQ(a->replica.requests().size(), 1u);
  const auto b = cluster.join("b", refuse(grpc::StatusCode::RESOURCE_EXHAUSTED));
  const auto c = cluster.join("c", refuse(grpc::StatusCode::RESOURCE_EXHAUSTED));
  expect_refusal();
  EXPECT_EQ(a->replica.requests().size() + b->replica.requests().size() + c->replica.requests().size(), 3u);
}

TEST(RefusalTest, ReplicaThatTakesNothingHasItsOwnWords) {
  TestCluster cluster(without_waiting());
  const auto a = cluster.join("a", refuse(grpc::StatusCode::UNAVAILABLE));
  const grpc::Status status = generate_once(cluster, token_request());
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(status.error_message(), "queue is full");
  EXPECT_TRUE(rpc::retry_info(status));
}

TEST(RefusalTest, SuccessorThatIsFullIsAskedAgain) {
  TestCluster cluster;
  std::atomic<int> asked{0};
  const auto a = cluster.join("a", send_part(true, 2, false, false));
  Stream stream(*cluster.inference, token_request());
  ASSERT_TRUE(stream.read_tokens(2));
  const auto b = cluster.join("b", [&](grpc::ServerContext& context, const v1::GenerateRequest& request,
                                       FakeReplica::Writer& writer) {
    if (++asked < 3) return refuse(grpc::StatusCode::RESOURCE_EXHAUSTED)(context, request, writer);
    return continue_to(kTokens)(context, request, writer);
  });
  a->replica.stop();
  expect_whole(stream);
  EXPECT_EQ(asked, 3);
}

}  // namespace
}  // namespace trireme
