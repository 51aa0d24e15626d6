// Whose request a replica is told it is.

#include <gtest/gtest.h>

#include <map>
#include <mutex>

#include "tests/coordinator/failover_scripts.h"

namespace trireme {
namespace {

using Metadata = std::map<std::string, std::string>;

/// What the calls came with that a replica got.
class SeenMetadata {
 public:
  /// Does as `script`.
  FakeReplica::Script watch(FakeReplica::Script script) {
    return [this, script](grpc::ServerContext& context, const v1::GenerateRequest& request,
                          FakeReplica::Writer& writer) {
      Metadata ours;
      for (const auto& [key, value] : context.client_metadata()) {
        const std::string name(key.data(), key.size());
        if (name.starts_with("x-trireme-")) ours[name] = std::string(value.data(), value.size());
      }
      {
        std::lock_guard lock(mutex_);
        last_ = std::move(ours);
      }
      return script(context, request, writer);
    };
  }
  Metadata last() {
    std::lock_guard lock(mutex_);
    return last_;
  }

 private:
  std::mutex mutex_;
  Metadata last_;
};

grpc::Status generate_with(TestCluster& cluster, const Metadata& metadata) {
  grpc::ClientContext context;
  set_patience(context);
  for (const auto& [key, value] : metadata) context.AddMetadata(key, value);
  v1::GenerateOnceResponse response;
  return cluster.inference->GenerateOnce(&context, token_request(), &response);
}

TEST(ClientIdentityTest, ReplicaIsToldTheNameOrTheAddressOfWhoAsked) {
  SeenMetadata seen;
  TestCluster cluster;
  const auto a = cluster.join("a", seen.watch(send_tokens(4)));
  ASSERT_TRUE(generate_with(cluster, {}).ok());
  EXPECT_EQ(seen.last(), (Metadata{{"x-trireme-client", "ipv4:127.0.0.1"}}));
  ASSERT_TRUE(generate_with(cluster, {{"x-trireme-client", "user 17"}, {"x-trireme-resumes", "1"}}).ok());
  EXPECT_EQ(seen.last(), (Metadata{{"x-trireme-client", "user 17"}}));
}

TEST(ClientIdentityTest, NameThatIsNoneIsRefusedBeforeAReplicaSeesIt) {
  TestCluster cluster;
  const auto a = cluster.join("a");
  const grpc::Status status = generate_with(cluster, {{"x-trireme-client", std::string(129, 'a')}});
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  ASSERT_TRUE(rpc::bad_request(status));
  EXPECT_EQ(rpc::bad_request(status)->field_violations(0).field(), "x-trireme-client");
  EXPECT_TRUE(a->replica.requests().empty());
  EXPECT_EQ(cluster.describe().requests_rejected(), 1);
}

TEST(ClientIdentityTest, SuccessorIsToldThatTheRequestWasLost) {
  SeenMetadata first, second;
  TestCluster cluster;
  const auto a = cluster.join("a", first.watch(send_part(true, 2, false, false)));
  Stream stream(*cluster.inference, token_request());
  ASSERT_TRUE(stream.read_tokens(2));
  const auto b = cluster.join("b", second.watch(continue_to(kTokens)));
  a->replica.stop();
  expect_whole(stream);
  EXPECT_EQ(first.last(), (Metadata{{"x-trireme-client", "ipv4:127.0.0.1"}}));
  EXPECT_EQ(second.last(), (Metadata{{"x-trireme-client", "ipv4:127.0.0.1"}, {"x-trireme-resumes", "1"}}));
}

}  // namespace
}  // namespace trireme
