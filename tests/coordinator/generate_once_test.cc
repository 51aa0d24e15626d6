// GenerateOnce through a coordinator.

#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/coordinator/test_cluster.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;

TEST(FrontendTest, GenerateOnceIsTheWholeStream) {
  TestCluster cluster;
  const auto a = cluster.join("a", send_tokens(5));
  v1::GenerateOnceResponse response;
  ASSERT_TRUE(generate_once(cluster, token_request("once"), &response).ok());
  EXPECT_EQ(response.prompt().request_id(), "once");
  ASSERT_EQ(response.completions_size(), 1);
  EXPECT_EQ(response.completions(0).token_ids_size(), 5);
  EXPECT_EQ(response.completions(0).text(), "t0 t1 t2 t3 t4 ");
  EXPECT_EQ(response.completions(0).finish_reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(response.usage().completion_tokens(), 5);
}

TEST(FrontendTest, GenerateOnceIsBounded) {
  TestCluster cluster;
  const auto a = cluster.join(
      "a", [](grpc::ServerContext&, const v1::GenerateRequest& request, FakeReplica::Writer& writer) {
        send_prompt(request, writer);
        v1::GenerateResponse response;
        response.add_deltas()->set_text(std::string(1 << 20, 'x'));
        while (writer.Write(response)) {
        }
        return grpc::Status::CANCELLED;
      });
  const grpc::Status status = generate_once(cluster, token_request());
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED) << status.error_message();
  EXPECT_THAT(status.error_message(), HasSubstr("use Generate"));
  EXPECT_TRUE(eventually([&] { return a->replica.num_running() == 0; }));
}

TEST(FrontendTest, GenerateOnceThatIsCancelledReachesTheReplica) {
  TestCluster cluster;
  FakeReplica* self = nullptr;
  const auto a = cluster.join("a", send_then_wait(self, 1));
  self = &a->replica;
  grpc::ClientContext context;
  set_patience(context);
  std::thread canceller([&] {
    EXPECT_TRUE(eventually([&] { return a->replica.num_running() == 1; }));
    context.TryCancel();
  });
  v1::GenerateOnceResponse response;
  EXPECT_EQ(cluster.inference->GenerateOnce(&context, token_request(), &response).error_code(),
            grpc::StatusCode::CANCELLED);
  canceller.join();
  EXPECT_TRUE(eventually([&] { return a->replica.num_running() == 0; }));
}

}  // namespace
}  // namespace trireme
