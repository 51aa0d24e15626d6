#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coordinator/join_request.h"
#include "tests/coordinator/test_cluster.h"

namespace trireme {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

v1::JoinJobRequest job(int num_ranks) {
  v1::JoinJobRequest request;
  request.set_protocol_version(1);
  request.set_job_id("job7");
  *request.mutable_model() = demo_model();
  for (int rank = 0; rank < num_ranks; ++rank) {
    v1::RankInfo* info = request.add_ranks();
    info->set_rank(rank);
    info->set_host("here");
    info->set_device("cpu");
    info->set_memory_bytes(int64_t{1} << 30);
  }
  return request;
}

struct Answer {
  grpc::Status status;
  v1::JoinJobResponse response;
};

Answer join(TestCluster& cluster, const v1::JoinJobRequest& request) {
  Answer answer;
  grpc::ClientContext context;
  set_patience(context);
  answer.status = cluster.cluster->JoinJob(&context, request, &answer.response);
  return answer;
}

void expect_refused(const grpc::Status& status, grpc::StatusCode code,
                    const std::vector<std::string>& words) {
  EXPECT_EQ(status.error_code(), code) << status.error_message();
  for (const std::string& word : words) EXPECT_THAT(status.error_message(), HasSubstr(word));
}

constexpr auto kRefused = grpc::StatusCode::FAILED_PRECONDITION;
constexpr auto kInvalid = grpc::StatusCode::INVALID_ARGUMENT;

TEST(ClusterServiceTest, JobGetsAPlan) {
  TestCluster cluster;
  v1::JoinJobRequest request = job(4);
  request.set_wanted_tensor_parallel_size(2);
  const Answer answer = join(cluster, request);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.response.tensor_parallel_size(), 2);
  ASSERT_EQ(answer.response.replicas_size(), 2);
  EXPECT_EQ(answer.response.replicas(0).replica_id(), "job7-0");
  EXPECT_THAT(answer.response.replicas(0).ranks(), ElementsAre(0, 1));
  EXPECT_EQ(answer.response.replicas(1).replica_id(), "job7-1");
  EXPECT_THAT(answer.response.replicas(1).ranks(), ElementsAre(2, 3));
  EXPECT_EQ(join(cluster, job(4)).response.tensor_parallel_size(), 1);  // fits, so no need to cut
}

TEST(ClusterServiceTest, CoordinatorsWishDecides) {
  CoordinatorOptions options = on_a_free_port();
  options.cluster.tensor_parallel_size = 4;
  TestCluster cluster(options);
  EXPECT_EQ(join(cluster, job(4)).response.tensor_parallel_size(), 4);
  v1::JoinJobRequest request = job(4);
  request.set_wanted_tensor_parallel_size(2);
  expect_refused(join(cluster, request).status, kRefused, {"asks for 2", "started with 4"});
}

TEST(ClusterServiceTest, JobThatCannotBePlannedHearsWhy) {
  TestCluster cluster;
  v1::JoinJobRequest request = job(3);
  request.set_wanted_tensor_parallel_size(3);
  expect_refused(join(cluster, request).status, kRefused, {"3"});
  request = job(1);
  request.mutable_ranks(0)->set_memory_bytes(1);
  expect_refused(join(cluster, request).status, kRefused, {"MiB"});
}

TEST(ClusterServiceTest, JobIsCheckedFieldByField) {
  TestCluster cluster;
  v1::JoinJobRequest request = job(1);
  request.set_protocol_version(2);
  expect_refused(join(cluster, request).status, kRefused, {"speaks 1", "the job 2"});
  request = job(1);
  request.set_job_id("a b");
  expect_refused(join(cluster, request).status, kInvalid, {"job_id"});
  request = job(1);
  request.mutable_model()->set_num_layers(-1);
  expect_refused(join(cluster, request).status, kInvalid, {"model.num_layers is -1"});
  request = job(1);
  request.mutable_model()->set_hidden_size(std::numeric_limits<int32_t>::max());
  expect_refused(join(cluster, request).status, kInvalid, {"model.hidden_size"});
  request = job(2);
  request.mutable_ranks(1)->set_rank(5);
  expect_refused(join(cluster, request).status, kInvalid, {"ranks[1].rank is 5"});
  request = job(0);
  expect_refused(join(cluster, request).status, kInvalid, {"ranks is 0"});
  request = job(1);
  request.mutable_ranks(0)->set_memory_bytes(-1);
  expect_refused(join(cluster, request).status, kInvalid, {"memory_bytes is -1"});
}

TEST(ClusterServiceTest, JobWithAnotherModelIsRefusedWhileReplicasLive) {
  TestCluster cluster;
  const auto a = cluster.join("a");
  v1::JoinJobRequest request = job(1);
  EXPECT_TRUE(join(cluster, request).status.ok());
  request.mutable_model()->set_config_hash("other");
  expect_refused(join(cluster, request).status, kRefused, {"config hash", "c0ffee", "other"});
  a->leader.hang_up();
  ASSERT_TRUE(eventually([&] { return cluster.describe().replicas().empty(); }));
  EXPECT_TRUE(join(cluster, request).status.ok());
}

TEST(ClusterServiceTest, RegistrationIsChecked) {
  TestCluster cluster;
  const auto outcome = [&](const v1::ReplicaRegistration& wanted) {
    return FakeLeader(cluster.address(), wanted).ended();
  };
  v1::ReplicaRegistration wanted = registration("a", 0);
  expect_refused(outcome(wanted), kInvalid, {"port is 0"});
  wanted.set_port(70'000);
  expect_refused(outcome(wanted), kInvalid, {"port is 70000"});
  wanted = registration("a b", 1);
  expect_refused(outcome(wanted), kInvalid, {"replica_id"});
  wanted = registration("a", 1);
  wanted.clear_incarnation();
  expect_refused(outcome(wanted), kInvalid, {"incarnation"});
  wanted = registration("a", 1);
  wanted.set_max_context_len(0);
  expect_refused(outcome(wanted), kInvalid, {"max_context_len"});
  wanted = registration("a", 1);
  wanted.set_advertise("nowhere");
  expect_refused(outcome(wanted), kInvalid, {"advertise", "nowhere"});
  for (const char* address : {"nowhere", "a\x1b[2J:1", "host:70000"}) {
    wanted = registration("a", 1);
    wanted.set_metrics_address(address);
    expect_refused(outcome(wanted), kInvalid, {"metrics_address"});
  }
  EXPECT_TRUE(cluster.describe().replicas().empty());
}

TEST(ClusterServiceTest, FirstMessageMustRegister) {
  TestCluster cluster;
  grpc::ClientContext context;
  set_patience(context);
  const auto stream = cluster.cluster->ServeReplica(&context);
  v1::ReplicaReport report;
  report.mutable_load()->set_waiting_requests(1);
  stream->Write(report);
  v1::ReplicaCommand command;
  EXPECT_FALSE(stream->Read(&command));
  expect_refused(stream->Finish(), kInvalid, {"registration"});
}

TEST(ClusterServiceTest, SecondReplicaOfANameIsRefusedAndTheFirstServesOn) {
  TestCluster cluster;
  const auto a = cluster.join("a");
  FakeReplica imposter;
  v1::ReplicaRegistration wanted = registration("a", imposter.port());
  wanted.set_incarnation("i2");
  expect_refused(FakeLeader(cluster.address(), wanted).ended(), kRefused, {"a is live", "i1", "i2"});
  EXPECT_TRUE(generate_once(cluster, token_request()).ok());
  EXPECT_TRUE(imposter.requests().empty());
}

TEST(ClusterServiceTest, OldIncarnationIsFenced) {
  TestCluster cluster;
  FakeReplica replica;
  v1::ReplicaRegistration old = registration("a", replica.port());
  v1::ReplicaRegistration fresh = old;
  fresh.set_incarnation("i2");
  for (const auto& wanted : {old, fresh}) {
    FakeLeader leader(cluster.address(), wanted);
    ASSERT_TRUE(leader.was_told(v1::REPLICA_STATE_SERVING));
  }
  ASSERT_TRUE(eventually([&] { return cluster.describe().replicas().empty(); }));
  expect_refused(FakeLeader(cluster.address(), old).ended(), kRefused, {"i1 was replaced by i2"});
  FakeLeader again(cluster.address(), fresh);
  EXPECT_TRUE(again.was_told(v1::REPLICA_STATE_SERVING));
}

TEST(ClusterServiceTest, DescribesItsReplicas) {
  TestCluster cluster;
  FakeReplica replica;
  v1::ReplicaRegistration wanted = registration("a", 1);
  wanted.set_advertise("127.0.0.1:" + std::to_string(replica.port()));
  wanted.add_ranks()->set_host("node-3");
  FakeLeader leader(cluster.address(), wanted);
  ASSERT_TRUE(leader.was_told(v1::REPLICA_STATE_SERVING));
  EXPECT_EQ(cluster.state_of("a"), v1::REPLICA_STATE_SERVING);
  v1::ReplicaReport report;
  report.mutable_load()->set_kv_blocks_total(77);
  ASSERT_TRUE(leader.report(report));
  ASSERT_TRUE(eventually([&] { return cluster.describe().replicas(0).load().kv_blocks_total() == 77; }));
  EXPECT_TRUE(generate_once(cluster, token_request()).ok());  // by the advertised address
  const v1::GetClusterResponse response = cluster.describe();
  EXPECT_EQ(response.model(), "demo");
  EXPECT_EQ(response.requests_total(), 1);
  EXPECT_EQ(response.requests_failed(), 0);
  EXPECT_EQ(response.version(), "0.1.0");
  EXPECT_GE(response.uptime_ms(), 0);
  EXPECT_EQ(response.replicas(0).address(), wanted.advertise());
  EXPECT_EQ(response.replicas(0).ranks(0).host(), "node-3");
  EXPECT_EQ(response.replicas(0).incarnation(), "i1");
  EXPECT_EQ(response.replicas(0).job_id(), "job");
  EXPECT_EQ(response.replicas(0).backend(), "cpu");
}

TEST(ReplicaAddressTest, IsThePeersHostAndTheReportedPort) {
  const v1::ReplicaRegistration plain = registration("a", 4000);
  EXPECT_EQ(*replica_address(plain, "ipv4:10.0.0.7:51234"), "10.0.0.7:4000");
  EXPECT_EQ(*replica_address(plain, "ipv6:%5B::1%5D:51234"), "[::1]:4000");
  EXPECT_EQ(*replica_address(plain, "ipv6:[fd00::7]:51234"), "[fd00::7]:4000");
  EXPECT_EQ(*replica_address(plain, "ipv6:%5B::ffff:10.0.0.7%5D:51234"), "10.0.0.7:4000");
  EXPECT_FALSE(replica_address(plain, "unix:/tmp/socket").ok());
  EXPECT_FALSE(replica_address(plain, "").ok());
  v1::ReplicaRegistration advertised = plain;
  advertised.set_advertise("node-3:9");
  EXPECT_EQ(*replica_address(advertised, "ipv4:10.0.0.7:51234"), "node-3:9");
}

}  // namespace
}  // namespace trireme
