// How a relayed request ends: by its client, its deadline, its replica.

#include <atomic>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/coordinator/test_cluster.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;

TEST(FrontendTest, ClientThatDoesNotReadStopsTheReplica) {
  constexpr int kMessages = 10'000;
  std::atomic<int> written{0};
  TestCluster cluster;
  const auto a = cluster.join(
      "a", [&](grpc::ServerContext&, const v1::GenerateRequest& request, FakeReplica::Writer& writer) {
        send_prompt(request, writer);
        v1::GenerateResponse response;
        response.add_deltas()->set_text(std::string(4096, 'x'));
        for (; written < kMessages; ++written) {
          response.mutable_deltas(0)->clear_token_ids();
          response.mutable_deltas(0)->add_token_ids(written);
          if (!writer.Write(response)) return grpc::Status::CANCELLED;
        }
        send_end(writer, kMessages, v1::FINISH_REASON_LENGTH);
        return grpc::Status::OK;
      });
  Stream stream(*cluster.inference, token_request());
  ASSERT_TRUE(stream.read_tokens(1));
  // Held back means: the count stands still, far from the end.
  int last = -1, unchanged = 0;
  ASSERT_TRUE(eventually([&] {
    unchanged = written == last ? unchanged + 1 : 0;
    last = written;
    return unchanged == 300;
  }));
  EXPECT_LT(written, kMessages / 10);
  ASSERT_TRUE(stream.finish().ok());
  ASSERT_EQ(stream.tokens.size(), static_cast<size_t>(kMessages));
  for (int i = 0; i < kMessages; ++i) ASSERT_EQ(stream.tokens[static_cast<size_t>(i)], i);
}

TEST(FrontendTest, ClientsCancelReachesTheReplica) {
  TestCluster cluster;
  FakeReplica* self = nullptr;
  const auto a = cluster.join("a", send_then_wait(self, 2));
  self = &a->replica;
  Stream stream(*cluster.inference, token_request("x"));
  ASSERT_TRUE(stream.read_tokens(2));
  stream.cancel();
  EXPECT_EQ(stream.finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(eventually([&] { return a->replica.num_running() == 0; }));
  EXPECT_TRUE(a->replica.saw_cancelled_context());
  EXPECT_TRUE(eventually([&] { return cluster.describe().replicas(0).outstanding_requests() == 0; }));
  EXPECT_EQ(cluster.describe().requests_failed(), 0);
}

TEST(FrontendTest, DeadlineCrossesToTheReplica) {
  std::atomic<int64_t> seen_ms{-1};
  TestCluster cluster;
  const auto a = cluster.join("a", [&](grpc::ServerContext& context, const v1::GenerateRequest& request,
                                       FakeReplica::Writer& writer) {
    seen_ms = std::chrono::duration_cast<std::chrono::milliseconds>(context.deadline() -
                                                                    std::chrono::system_clock::now())
                  .count();
    send_prompt(request, writer);
    EXPECT_TRUE(eventually([&] { return context.IsCancelled(); }));
    return grpc::Status::CANCELLED;
  });
  Stream stream(*cluster.inference, token_request(), std::chrono::milliseconds(700));
  EXPECT_EQ(stream.finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(eventually([&] { return a->replica.num_running() == 0; }));
  EXPECT_LE(seen_ms, 1000);
}

TEST(FrontendTest, RequestTimeIsCappedWithoutADeadline) {
  CoordinatorOptions options = on_a_free_port();
  options.frontend.max_request_time = std::chrono::milliseconds(200);
  TestCluster cluster(options);
  FakeReplica* self = nullptr;
  const auto a = cluster.join("a", send_then_wait(self, 1));
  self = &a->replica;
  Stream stream(*cluster.inference, token_request(), std::chrono::hours(24));
  EXPECT_EQ(stream.finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(eventually([&] { return a->replica.num_running() == 0; }));
}

TEST(FrontendTest, CancelByIdEndsTheStreamWithItsReason) {
  TestCluster cluster;
  FakeReplica* self = nullptr;
  const auto a = cluster.join("a", send_then_wait(self, 3));
  self = &a->replica;
  Stream stream(*cluster.inference, token_request("stop-me"));
  ASSERT_TRUE(stream.read_tokens(3));
  const auto cancel = [&](const std::string& id) {
    grpc::ClientContext context;
    set_patience(context);
    v1::CancelRequest request;
    request.set_request_id(id);
    v1::CancelResponse response;
    return cluster.inference->Cancel(&context, request, &response).error_code();
  };
  EXPECT_EQ(cancel("stop-me"), grpc::StatusCode::OK);
  EXPECT_TRUE(a->replica.is_cancelled("stop-me"));
  ASSERT_TRUE(stream.finish().ok());
  EXPECT_EQ(stream.finish_reason, v1::FINISH_REASON_CANCELLED);
  EXPECT_EQ(stream.tokens.size(), 3u);
  EXPECT_EQ(cancel("stop-me"), grpc::StatusCode::OK);  // idempotent
  EXPECT_EQ(cancel("never-seen"), grpc::StatusCode::OK);
  EXPECT_EQ(a->replica.cancelled_ids(), std::vector<std::string>{"stop-me"});
}

TEST(FrontendTest, CancelThatOvertakesTheRequestIsRepeated) {
  // The replica answers Cancel before its Generate has noticed the request, as a real one may.
  TestCluster cluster;
  std::atomic<bool> may_start{false};
  FakeReplica* self = nullptr;
  const auto a = cluster.join(
      "a", [&](grpc::ServerContext&, const v1::GenerateRequest& request, FakeReplica::Writer& writer) {
        EXPECT_TRUE(eventually([&] { return may_start.load(); }));
        const size_t before = self->cancelled_ids().size();
        send_prompt(request, writer);
        EXPECT_TRUE(eventually([&] { return self->cancelled_ids().size() > before; }));
        send_end(writer, 0, v1::FINISH_REASON_CANCELLED);
        return grpc::Status::OK;
      });
  self = &a->replica;
  Stream stream(*cluster.inference, token_request("early"));
  ASSERT_TRUE(eventually([&] { return a->replica.num_running() == 1; }));
  grpc::ClientContext context;
  set_patience(context);
  v1::CancelRequest request;
  request.set_request_id("early");
  v1::CancelResponse response;
  EXPECT_TRUE(cluster.inference->Cancel(&context, request, &response).ok());
  may_start = true;
  EXPECT_TRUE(stream.finish().ok());
  EXPECT_EQ(stream.finish_reason, v1::FINISH_REASON_CANCELLED);
}

TEST(FrontendTest, ReplicaThatDiesInMidStreamIsUnavailableWithTheTokensSent) {
  TestCluster cluster(without_waiting());
  FakeReplica* self = nullptr;
  const auto a = cluster.join("a", send_then_wait(self, 3));
  self = &a->replica;
  Stream stream(*cluster.inference, token_request("doomed"));
  ASSERT_TRUE(stream.read_tokens(3));
  a->replica.stop();
  const grpc::Status status = stream.finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(tokens_sent(status), "3");
  EXPECT_THAT(status.error_message(), HasSubstr("replica a was lost"));
  EXPECT_EQ(rpc::error_info(status)->metadata().at("request_id"), "doomed");
  EXPECT_EQ(cluster.describe().requests_failed(), 1);
}

TEST(FrontendTest, EndOfTheLeaseEndsItsRequests) {
  TestCluster cluster(without_waiting());
  FakeReplica* self = nullptr;
  const auto a = cluster.join("a", send_then_wait(self, 2));
  self = &a->replica;
  Stream stream(*cluster.inference, token_request());
  ASSERT_TRUE(stream.read_tokens(2));
  EXPECT_TRUE(a->leader.hang_up().ok());
  const grpc::Status status = stream.finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(tokens_sent(status), "2");
  EXPECT_TRUE(eventually([&] { return a->replica.num_running() == 0; }));
}

TEST(FrontendTest, ReplicasOwnErrorKeepsItsDetails) {
  TestCluster cluster;
  const auto a =
      cluster.join("a", [](grpc::ServerContext&, const v1::GenerateRequest&, FakeReplica::Writer&) {
        return rpc::invalid_field("text", "has 300 tokens; the context holds 256");
      });
  const grpc::Status status = generate_once(cluster, token_request());
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  ASSERT_TRUE(rpc::bad_request(status).has_value());
  EXPECT_EQ(rpc::bad_request(status)->field_violations(0).field(), "text");
  EXPECT_EQ(cluster.describe().requests_failed(), 0);
}

TEST(FrontendTest, StreamThatMakesNoSenseIsAnInternalError) {
  TestCluster cluster;
  const auto a = cluster.join(
      "a", [](grpc::ServerContext&, const v1::GenerateRequest& request, FakeReplica::Writer& writer) {
        v1::GenerateResponse response;
        if (request.request_id() == "sample") {
          response.add_deltas()->set_index(1);
          writer.Write(response);
          send_end(writer, 0, v1::FINISH_REASON_STOP);
        } else {
          send_prompt(request, writer);
        }
        return grpc::Status::OK;
      });
  EXPECT_EQ(generate_once(cluster, token_request("sample")).error_code(), grpc::StatusCode::INTERNAL);
  const grpc::Status status = generate_once(cluster, token_request("short"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_THAT(status.error_message(), HasSubstr("without usage"));
  EXPECT_EQ(cluster.describe().requests_failed(), 2);
}

}  // namespace
}  // namespace trireme
