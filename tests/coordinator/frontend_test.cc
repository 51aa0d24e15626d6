#include <numeric>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/coordinator/test_cluster.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;

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

TEST(FrontendTest, ActiveIdIsRefusedAndFreeAgainAfterwards) {
  TestCluster cluster;
  FakeReplica* self = nullptr;
  const auto a = cluster.join("a", send_then_wait(self, 1));
  self = &a->replica;
  Stream first(*cluster.inference, token_request("same"));
  ASSERT_TRUE(first.read_tokens(1));
  EXPECT_EQ(generate_once(cluster, token_request("same")).error_code(), grpc::StatusCode::ALREADY_EXISTS);
  EXPECT_EQ(a->replica.requests().size(), 1u);
  EXPECT_EQ(cluster.describe().replicas(0).outstanding_requests(), 1);
  first.cancel();
  first.finish();
  ASSERT_TRUE(eventually([&] { return cluster.describe().replicas(0).outstanding_requests() == 0; }));
  Stream second(*cluster.inference, token_request("same"));
  EXPECT_TRUE(second.read_tokens(1));
}

TEST(FrontendTest, BadRequestNamesItsFieldAndGoesNowhere) {
  TestCluster cluster;
  const auto a = cluster.join("a");
  const auto field = [&](const v1::GenerateRequest& request) {
    const grpc::Status status = generate_once(cluster, request);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    const auto detail = rpc::bad_request(status);
    return detail ? detail->field_violations(0).field() : "none";
  };
  EXPECT_EQ(field({}), "prompt");
  v1::GenerateRequest request = token_request();
  request.mutable_sampling()->set_top_p(std::numeric_limits<float>::quiet_NaN());
  EXPECT_EQ(field(request), "sampling.top_p");
  request = token_request();
  request.mutable_token_ids()->add_ids(1000);  // the replica's vocabulary ends before it
  EXPECT_EQ(field(request), "token_ids.ids[1]");
  request = token_request();
  request.mutable_stopping()->set_max_tokens(256);
  EXPECT_EQ(field(request), "stopping.max_tokens");
  request = token_request();
  request.mutable_output()->set_n(std::numeric_limits<int32_t>::max());
  EXPECT_EQ(field(request), "output.n");
  EXPECT_TRUE(a->replica.requests().empty());
  EXPECT_TRUE(generate_once(cluster, token_request()).ok());
}

TEST(FrontendTest, LimitsAreThoseOfTheCoordinatorsOptions) {
  CoordinatorOptions options = on_a_free_port();
  options.frontend.limits.max_n = 2;
  options.frontend.limits.max_prompt_bytes = 3;
  TestCluster cluster(options);
  const auto a = cluster.join("a");
  v1::GenerateRequest request = token_request();
  request.mutable_token_ids()->clear_ids();
  for (int32_t id : {1, 2, 3}) request.mutable_token_ids()->add_ids(id);
  EXPECT_TRUE(Stream(*cluster.inference, request).finish().ok());
  request.mutable_output()->set_n(3);
  EXPECT_THAT(Stream(*cluster.inference, request).finish().error_message(), HasSubstr("wanted at most 2"));
  request.mutable_output()->clear_n();
  request.set_text("abcd");
  EXPECT_THAT(Stream(*cluster.inference, request).finish().error_message(),
              HasSubstr("at most 3 are allowed"));
}

TEST(FrontendTest, UnknownModelIsNotFound) {
  TestCluster cluster;
  const auto a = cluster.join("a");
  v1::GenerateRequest request = token_request();
  request.set_model("other");
  EXPECT_EQ(generate_once(cluster, request).error_code(), grpc::StatusCode::NOT_FOUND);
  grpc::ClientContext context;
  set_patience(context);
  v1::TokenizeRequest tokenize;
  tokenize.set_model(std::string(100'000, 'm'));  // its echo must fit the trailers
  v1::TokenizeResponse response;
  EXPECT_EQ(cluster.inference->Tokenize(&context, tokenize, &response).error_code(),
            grpc::StatusCode::NOT_FOUND);
  request.set_model("demo");
  EXPECT_TRUE(generate_once(cluster, request).ok());
}

TEST(FrontendTest, WithoutReplicasClientsAreToldToRetry) {
  TestCluster cluster;
  const grpc::Status status = generate_once(cluster, token_request());
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  ASSERT_TRUE(rpc::retry_info(status).has_value());
  EXPECT_EQ(rpc::retry_info(status)->retry_delay().seconds(), 1);
  grpc::ClientContext context;
  set_patience(context);
  v1::GetModelResponse response;
  EXPECT_EQ(cluster.inference->GetModel(&context, {}, &response).error_code(), grpc::StatusCode::UNAVAILABLE);
}

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

TEST(FrontendTest, TooMuchTextIsNotForwarded) {
  TestCluster cluster;
  const auto a = cluster.join("a");
  grpc::ClientContext context;
  set_patience(context);
  v1::TokenizeRequest request;
  request.set_text(std::string((1 << 20) + 1, 'x'));
  v1::TokenizeResponse response;
  EXPECT_EQ(cluster.inference->Tokenize(&context, request, &response).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
}

}  // namespace
}  // namespace trireme
