#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "grpc/health/v1/health.grpc.pb.h"
#include "tests/coordinator/test_cluster.h"

namespace trireme {
namespace {

namespace health = grpc::health::v1;

health::HealthCheckRequest service(const std::string& name) {
  health::HealthCheckRequest request;
  request.set_service(name);
  return request;
}

/// The statuses a Watch of one service told, in order.
class Watch {
 public:
  Watch(TestCluster& cluster, const std::string& name) : stub_(health::Health::NewStub(cluster.channel)) {
    set_patience(context_);
    reader_ = stub_->Watch(&context_, service(name));
  }
  ~Watch() {
    context_.TryCancel();
    health::HealthCheckResponse response;
    while (reader_->Read(&response)) {
    }
    reader_->Finish();
  }
  health::HealthCheckResponse::ServingStatus next() {
    health::HealthCheckResponse response;
    return reader_->Read(&response) ? response.status() : health::HealthCheckResponse::UNKNOWN;
  }

 private:
  std::unique_ptr<health::Health::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<health::HealthCheckResponse>> reader_;
};

constexpr auto kServing = health::HealthCheckResponse::SERVING;
constexpr auto kNotServing = health::HealthCheckResponse::NOT_SERVING;

class HealthTest : public ::testing::TestWithParam<std::string> {};

TEST_P(HealthTest, FollowsWhetherAnyReplicaServes) {
  TestCluster cluster;
  Watch watch(cluster, GetParam());
  EXPECT_EQ(watch.next(), kNotServing);
  auto a = cluster.join("a");
  EXPECT_EQ(watch.next(), kServing);
  auto b = cluster.join("b");
  a.reset();  // one is left: no change
  ASSERT_TRUE(eventually([&] { return cluster.describe().replicas_size() == 1; }));
  b.reset();
  EXPECT_EQ(watch.next(), kNotServing);
  const auto c = cluster.join("c");
  EXPECT_EQ(watch.next(), kServing);
  grpc::ClientContext context;
  set_patience(context);
  health::HealthCheckResponse response;
  ASSERT_TRUE(health::Health::NewStub(cluster.channel)->Check(&context, service(GetParam()), &response).ok());
  EXPECT_EQ(response.status(), kServing);
}

INSTANTIATE_TEST_SUITE_P(Services, HealthTest, ::testing::Values("", "trireme.v1.Inference"));

TEST(DrainTest, RunningStreamsFinishAndNewOnesAreRefused) {
  TestCluster cluster;
  std::atomic<bool> may_end{false};
  const auto a = cluster.join(
      "a", [&](grpc::ServerContext&, const v1::GenerateRequest& request, FakeReplica::Writer& writer) {
        send_prompt(request, writer);
        send_token(writer, 0);
        EXPECT_TRUE(eventually([&] { return may_end.load(); }));
        send_token(writer, 1);
        send_end(writer, 2, v1::FINISH_REASON_LENGTH);
        return grpc::Status::OK;
      });
  Watch watch(cluster, "");
  EXPECT_EQ(watch.next(), kServing);
  Stream stream(*cluster.inference, token_request());
  ASSERT_TRUE(stream.read_tokens(1));
  int cut_off = -1;
  std::thread drain([&] { cut_off = cluster.coordinator->drain(kPatience); });
  EXPECT_TRUE(a->leader.was_told(v1::REPLICA_STATE_DRAINING));
  EXPECT_EQ(watch.next(), kNotServing);
  const grpc::Status refused = generate_once(cluster, token_request());
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_TRUE(rpc::retry_info(refused).has_value());
  const grpc::Status late = FakeLeader(cluster.address(), registration("late", 1)).ended();
  EXPECT_EQ(late.error_code(), grpc::StatusCode::UNAVAILABLE);
  may_end = true;
  EXPECT_TRUE(stream.finish().ok());
  EXPECT_EQ(stream.tokens.size(), 2u);
  EXPECT_TRUE(a->leader.was_told(v1::REPLICA_STATE_STOP));
  a->leader.hang_up();
  drain.join();
  EXPECT_EQ(cut_off, 0);
}

TEST(DrainTest, WhatOutlastsTheTimeoutIsCutOff) {
  TestCluster cluster;
  FakeReplica* self = nullptr;
  const auto a = cluster.join("a", send_then_wait(self, 2));
  self = &a->replica;
  Stream stream(*cluster.inference, token_request());
  ASSERT_TRUE(stream.read_tokens(2));
  std::thread leader([&] {
    EXPECT_TRUE(a->leader.was_told(v1::REPLICA_STATE_STOP));
    a->leader.hang_up();
  });
  EXPECT_EQ(cluster.coordinator->drain(std::chrono::milliseconds(50)), 1);
  leader.join();
  const grpc::Status status = stream.finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(tokens_sent(status), "2");
  EXPECT_TRUE(eventually([&] { return a->replica.num_running() == 0; }));
}

TEST(DrainTest, KeptReplicasOnlySeeTheStreamEnd) {
  CoordinatorOptions options = on_a_free_port();
  options.keep_replicas = true;
  auto cluster = std::make_unique<TestCluster>(options);
  const auto a = cluster->join("a");
  EXPECT_EQ(cluster->coordinator->drain(kPatience), 0);
  cluster->coordinator.reset();
  EXPECT_EQ(a->leader.ended().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_FALSE(a->leader.was_told(v1::REPLICA_STATE_DRAINING));
  EXPECT_FALSE(a->leader.was_told(v1::REPLICA_STATE_STOP));
}

TEST(DrainTest, DestructionWithOpenStreamsEnds) {
  auto cluster = std::make_unique<TestCluster>();
  FakeReplica* self = nullptr;
  const auto a = cluster->join("a", send_then_wait(self, 1));
  self = &a->replica;
  Stream stream(*cluster->inference, token_request());
  ASSERT_TRUE(stream.read_tokens(1));
  cluster->coordinator.reset();
  EXPECT_EQ(stream.finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

}  // namespace
}  // namespace trireme
