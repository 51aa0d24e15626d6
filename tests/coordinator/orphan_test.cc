// Requests whose replica is dead while no other one serves.

#include <optional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/coordinator/failover_scripts.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;

TEST(OrphanTest, WaitsForAReplicaAndNotForTheOneItWasLostOn) {
  TestCluster cluster;
  const auto a = cluster.join("a", send_part(true, 2, false, false));
  Stream stream(*cluster.inference, token_request());
  ASSERT_TRUE(stream.read_tokens(2));
  a->leader.hang_up();
  ASSERT_TRUE(eventually([&] { return a->replica.num_running() == 0; }));
  FakeLeader again(cluster.address(), registration("a", a->replica.port()));  // the same process
  ASSERT_TRUE(again.was_told(v1::REPLICA_STATE_SERVING));
  FakeReplica restarted(continue_to(kTokens));
  v1::ReplicaRegistration other = registration("b", restarted.port());
  other.set_incarnation("i2");
  FakeLeader leader(cluster.address(), other);
  expect_whole(stream);
  EXPECT_EQ(a->replica.requests().size(), 1u);
  EXPECT_EQ(restarted.requests().size(), 1u);
}

CoordinatorOptions waits_for(std::chrono::milliseconds time) {
  CoordinatorOptions options = on_a_free_port();
  options.frontend.request.resume_timeout = time;
  return options;
}

/// A request whose only replica is dead.
struct Orphan {
  explicit Orphan(const CoordinatorOptions& options, std::chrono::milliseconds timeout = kPatience)
      : cluster(options), a(cluster.join("a", send_part(true, 2, false, false))) {
    stream.emplace(*cluster.inference, token_request("orphan"), timeout);
    EXPECT_TRUE(stream->read_tokens(2));
    a->replica.stop();
    EXPECT_TRUE(eventually([&] { return cluster.describe().replicas(0).outstanding_requests() == 0; }));
  }
  TestCluster cluster;
  std::unique_ptr<Joined> a;
  std::optional<Stream> stream;
};

TEST(OrphanTest, WaitsForALimitedTime) {
  Orphan orphan(waits_for(std::chrono::milliseconds(100)));
  const grpc::Status status = orphan.stream->finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(tokens_sent(status), "2");
  EXPECT_THAT(status.error_message(), HasSubstr("replica a was lost"));
}

TEST(OrphanTest, DeadlinePassesBetweenReplicas) {
  Orphan orphan(waits_for(kPatience), std::chrono::milliseconds(1000));
  EXPECT_EQ(orphan.stream->finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(eventually([&] { return orphan.cluster.describe().requests_running() == 0; }));

  CoordinatorOptions capped = waits_for(kPatience);
  capped.frontend.max_request_time = std::chrono::milliseconds(1000);
  Orphan without_deadline(capped);
  EXPECT_EQ(without_deadline.stream->finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
}

TEST(OrphanTest, ClientLeavesBetweenReplicas) {
  Orphan orphan(waits_for(kPatience));
  orphan.stream->cancel();
  EXPECT_EQ(orphan.stream->finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(eventually([&] { return orphan.cluster.describe().requests_cancelled() == 1; }));
  const auto b = orphan.cluster.join("b", continue_to(kTokens));
  EXPECT_TRUE(b->replica.requests().empty());
}

TEST(OrphanTest, CancelBetweenReplicasEndsTheRequest) {
  Orphan orphan(waits_for(kPatience));
  EXPECT_TRUE(cancel(orphan.cluster, "orphan").ok());
  EXPECT_EQ(orphan.stream->finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_EQ(orphan.cluster.describe().requests_cancelled(), 1);
  EXPECT_EQ(orphan.cluster.describe().requests_failed(), 0);
}

TEST(OrphanTest, DrainEndsWhatHasNoReplica) {
  Orphan orphan(waits_for(kPatience));
  std::thread leader([&] {
    EXPECT_TRUE(orphan.a->leader.was_told(v1::REPLICA_STATE_STOP));
    orphan.a->leader.hang_up();
  });
  EXPECT_EQ(orphan.cluster.coordinator->drain(kPatience), 0);
  leader.join();
  const grpc::Status status = orphan.stream->finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(tokens_sent(status), "2");
}

}  // namespace
}  // namespace trireme
