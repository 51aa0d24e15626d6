// Connections that break or go silent, by way of a proxy.

#include <gtest/gtest.h>

#include "tests/coordinator/tcp_proxy.h"
#include "tests/coordinator/test_cluster.h"

namespace trireme {
namespace {

int port_of(const TestCluster& cluster) { return rpc::parse_address(cluster.address())->port; }
std::string local(int port) { return rpc::Address{"127.0.0.1", port}.text(); }

TEST(LostConnectionTest, ClientWhoseConnectionBreaksIsGone) {
  TestCluster cluster;
  FakeReplica* self = nullptr;
  const auto a = cluster.join("a", send_then_wait(self, 1));
  self = &a->replica;
  TcpProxy proxy(port_of(cluster));
  const auto stub = v1::Inference::NewStub(rpc::create_channel(local(proxy.port())));
  Stream stream(*stub, token_request());
  ASSERT_TRUE(stream.read_tokens(1));
  proxy.cut();
  EXPECT_TRUE(eventually([&] { return a->replica.num_running() == 0; }));
  EXPECT_TRUE(a->replica.saw_cancelled_context());
  EXPECT_EQ(stream.finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST(LostConnectionTest, ReplicaBehindABrokenConnectionIsLost) {
  TestCluster cluster(without_waiting());
  FakeReplica* self = nullptr;
  FakeReplica replica(send_then_wait(self, 2));
  self = &replica;
  TcpProxy proxy(replica.port());
  FakeLeader leader(cluster.address(), registration("a", proxy.port()));
  ASSERT_TRUE(leader.was_told(v1::REPLICA_STATE_SERVING));
  Stream stream(*cluster.inference, token_request());
  ASSERT_TRUE(stream.read_tokens(2));
  proxy.cut();
  const grpc::Status status = stream.finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(tokens_sent(status), "2");
  EXPECT_TRUE(eventually([&] { return replica.num_running() == 0; }));
}

// A stopped process or a partition closes nothing. Only keepalive notices, 2 s + 2 s.
TEST(LostConnectionTest, SilentReplicaIsNoticedByKeepalive) {
  TestCluster cluster(without_waiting());
  FakeReplica* self = nullptr;
  FakeReplica replica(send_then_wait(self, 2));
  self = &replica;
  TcpProxy to_replica(replica.port()), to_coordinator(port_of(cluster));
  FakeLeader leader(local(to_coordinator.port()), registration("a", to_replica.port()));
  ASSERT_TRUE(leader.was_told(v1::REPLICA_STATE_SERVING));
  Stream stream(*cluster.inference, token_request());
  ASSERT_TRUE(stream.read_tokens(2));
  to_replica.go_silent();
  to_coordinator.go_silent();
  const grpc::Status status = stream.finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(tokens_sent(status), "2");
  EXPECT_TRUE(eventually([&] { return cluster.describe().replicas().empty(); }));
  EXPECT_EQ(leader.ended().error_code(), grpc::StatusCode::UNAVAILABLE);  // the replica notices as well
  EXPECT_TRUE(eventually([&] { return replica.num_running() == 0; }));
}

}  // namespace
}  // namespace trireme
