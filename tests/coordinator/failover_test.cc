// A replica dies; the client's stream goes on as if nothing had been.

#include <gtest/gtest.h>

#include "tests/coordinator/failover_scripts.h"

namespace trireme {
namespace {

struct Phase {
  const char* name;
  bool prompt = false;
  int num_tokens = 0;
  bool finish = false;
};

class FailoverPhaseTest : public ::testing::TestWithParam<Phase> {};

TEST_P(FailoverPhaseTest, StreamIsThatOfAnUnbrokenRun) {
  const Phase phase = GetParam();
  TestCluster cluster;
  const auto a = cluster.join("a", send_part(phase.prompt, phase.num_tokens, phase.finish, false));
  Stream stream(*cluster.inference, token_request("r"));
  ASSERT_TRUE(eventually([&] { return a->replica.num_running() == 1; }));
  const auto b = cluster.join("b", continue_to(kTokens));
  ASSERT_TRUE(stream.read_tokens(static_cast<size_t>(phase.num_tokens)));
  if (phase.finish) {
    ASSERT_TRUE(stream.next());
  }
  a->replica.stop();
  expect_whole(stream);
  ASSERT_EQ(b->replica.requests().size(), 1u);
  const v1::GenerateRequest sent = b->replica.requests().front();
  const v1::GenerateRequest before = a->replica.requests().front();
  EXPECT_EQ(sent.request_id(), before.request_id());
  EXPECT_EQ(sent.sampling().seed(), before.sampling().seed());
  ASSERT_EQ(sent.resume_size(), phase.num_tokens > 0 || phase.finish ? 1 : 0);
  if (sent.resume_size() > 0) {
    EXPECT_EQ(sent.resume(0).token_ids_size(), phase.num_tokens);
    EXPECT_EQ(sent.resume(0).finished(), phase.finish);
  }
  const v1::GetClusterResponse counts = cluster.describe();
  EXPECT_EQ(counts.requests_total(), 1);
  EXPECT_EQ(counts.requests_resumed(), 1);
  EXPECT_EQ(counts.requests_failed(), 0);
  EXPECT_EQ(counts.requests_running(), 0);
  EXPECT_EQ(counts.output_tokens(), kTokens);
}

INSTANTIATE_TEST_SUITE_P(Deaths, FailoverPhaseTest,
                         ::testing::Values(Phase{"BeforeTheFirstMessage"}, Phase{"InPrefill", true},
                                           Phase{"AfterToken1", true, 1}, Phase{"AfterToken2", true, 2},
                                           Phase{"InTheMiddle", true, kTokens / 2},
                                           Phase{"AfterTheLastToken", true, kTokens},
                                           Phase{"BeforeUsage", true, kTokens, true}),
                         [](const auto& test) { return test.param.name; });

TEST(FailoverTest, WhatWasPassedOnToTheEndIsNotRunAgain) {
  TestCluster cluster;
  const auto a = cluster.join("a", send_part(true, kTokens, true, true));
  Stream stream(*cluster.inference, token_request());
  while (stream.usage.completion_tokens() == 0) ASSERT_TRUE(stream.next());
  const auto b = cluster.join("b", continue_to(kTokens));
  a->replica.stop();
  EXPECT_TRUE(stream.finish().ok());
  EXPECT_EQ(stream.tokens, count_to(kTokens));
  EXPECT_TRUE(b->replica.requests().empty());
  EXPECT_EQ(cluster.describe().requests_resumed(), 0);
}

TEST(FailoverTest, FirstPromptInfoIsTheOneTheClientHas) {
  TestCluster cluster;
  const auto with_cached = [](int cached, int num_tokens, bool end) {
    return [=](grpc::ServerContext& context, const v1::GenerateRequest&, FakeReplica::Writer& writer) {
      v1::GenerateResponse response;
      response.mutable_prompt()->set_num_cached_tokens(cached);
      for (int i = 0; i < num_tokens; ++i) response.add_deltas()->add_token_ids(i);
      writer.Write(response);
      if (!end) return wait_for_the_end(context);
      send_end(writer, num_tokens, v1::FINISH_REASON_LENGTH);
      return grpc::Status::OK;
    };
  };
  const auto a = cluster.join("a", with_cached(16, 1, false));
  Stream stream(*cluster.inference, token_request());
  ASSERT_TRUE(stream.read_tokens(1));
  const auto b =
      cluster.join("b", with_cached(32, 2, true));  // its first message has tokens beside the prompt
  a->replica.stop();
  EXPECT_TRUE(stream.finish().ok());
  EXPECT_EQ(stream.num_prompts, 1);
  EXPECT_EQ(stream.prompt.num_cached_tokens(), 16);
  EXPECT_EQ(stream.tokens, (std::vector<int32_t>{0, 0, 1}));
}

TEST(FailoverTest, EndOfTheLeaseIsADeath) {
  TestCluster cluster;
  const auto a = cluster.join("a", send_part(true, 3, false, false));
  Stream stream(*cluster.inference, token_request());
  ASSERT_TRUE(stream.read_tokens(3));
  const auto b = cluster.join("b", continue_to(kTokens));
  EXPECT_TRUE(a->leader.hang_up().ok());
  expect_whole(stream);
  EXPECT_TRUE(eventually([&] { return a->replica.num_running() == 0; }));
}

TEST(FailoverTest, EverySampleGoesOnFromItsOwnTokens) {
  TestCluster cluster;
  const auto a = cluster.join(
      "a", [](grpc::ServerContext& context, const v1::GenerateRequest&, FakeReplica::Writer& writer) {
        v1::GenerateResponse response;
        response.add_deltas()->add_token_ids(10);
        v1::Delta* second = response.add_deltas();
        second->set_index(2);
        second->add_token_ids(20);
        second->add_token_ids(21);
        second->set_finish_reason(v1::FINISH_REASON_STOP);
        writer.Write(response);
        return wait_for_the_end(context);
      });
  v1::GenerateRequest request = token_request();
  request.mutable_output()->set_n(3);
  Stream stream(*cluster.inference, request);
  ASSERT_TRUE(stream.read_tokens(3));
  const auto b = cluster.join("b");
  a->replica.stop();
  EXPECT_TRUE(stream.finish().ok());
  const v1::GenerateRequest sent = b->replica.requests().front();
  ASSERT_EQ(sent.resume_size(), 2);
  EXPECT_EQ(sent.resume(0).index(), 0);
  EXPECT_EQ(sent.resume(0).token_ids_size(), 1);
  EXPECT_FALSE(sent.resume(0).finished());
  EXPECT_EQ(sent.resume(1).index(), 2);
  EXPECT_EQ(sent.resume(1).token_ids(1), 21);
  EXPECT_TRUE(sent.resume(1).finished());
}

TEST(FailoverTest, ClientsOwnResumeStateStaysInFront) {
  TestCluster cluster;
  const auto a = cluster.join(
      "a", [](grpc::ServerContext& context, const v1::GenerateRequest& request, FakeReplica::Writer& writer) {
        for (int i = request.resume(0).token_ids_size(); i < 5; ++i) send_token(writer, i);
        return wait_for_the_end(context);
      });
  v1::GenerateRequest request = token_request();
  v1::ResumeState* state = request.add_resume();
  state->add_token_ids(0);
  state->add_token_ids(1);
  Stream stream(*cluster.inference, request);
  ASSERT_TRUE(stream.read_tokens(3));
  const auto b = cluster.join("b", continue_to(kTokens));
  a->replica.stop();
  EXPECT_TRUE(stream.finish().ok());
  EXPECT_EQ(stream.tokens, (std::vector<int32_t>{2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(cluster.describe().output_tokens(), 6);
}

TEST(FailoverTest, GenerateOnceIsWholeToo) {
  TestCluster cluster;
  const auto a = cluster.join("a", send_part(true, 3, false, false));
  v1::GenerateOnceResponse response;
  grpc::Status status;
  std::thread client([&] { status = generate_once(cluster, token_request(), &response); });
  ASSERT_TRUE(eventually([&] { return a->replica.num_running() == 1; }));
  const auto b = cluster.join("b", continue_to(kTokens));
  a->replica.stop();
  client.join();
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(response.completions_size(), 1);
  EXPECT_EQ(response.completions(0).text(), text_of(kTokens));
  EXPECT_EQ(response.completions(0).token_ids_size(), kTokens);
}

TEST(FailoverTest, DeathWhileTheClientDoesNotReadLosesAndDoublesNothing) {
  constexpr int kMessages = 3000;
  const auto flood = [](grpc::ServerContext&, const v1::GenerateRequest& request,
                        FakeReplica::Writer& writer) {
    v1::GenerateResponse response;
    response.add_deltas()->set_text(std::string(4096, 'x'));
    int next = request.resume_size() > 0 ? request.resume(0).token_ids_size() : 0;
    for (; next < kMessages; ++next) {
      response.mutable_deltas(0)->clear_token_ids();
      response.mutable_deltas(0)->add_token_ids(next);
      if (!writer.Write(response)) return grpc::Status::CANCELLED;
    }
    send_end(writer, kMessages, v1::FINISH_REASON_LENGTH);
    return grpc::Status::OK;
  };
  TestCluster cluster;
  const auto a = cluster.join("a", flood);
  Stream stream(*cluster.inference, token_request());
  ASSERT_TRUE(stream.read_tokens(1));
  const auto b = cluster.join("b", flood);
  a->replica.stop();  // hundreds of messages are under way, one of them in a write that is open
  EXPECT_TRUE(stream.finish().ok());
  EXPECT_EQ(stream.tokens, count_to(kMessages));
  EXPECT_EQ(stream.text.size(), static_cast<size_t>(kMessages) * 4096);
  ASSERT_EQ(b->replica.requests().size(), 1u);
  const v1::GenerateRequest sent = b->replica.requests().front();
  EXPECT_GT(sent.resume(0).token_ids_size(), 0);
  EXPECT_LT(sent.resume(0).token_ids_size(), kMessages);
}

TEST(FailoverTest, RequestThatWasRunningAtTwoDeathsIsNotTriedAgain) {
  TestCluster cluster;
  const auto a = cluster.join("a", send_part(true, 2, false, false));
  Stream stream(*cluster.inference, token_request("poison"));
  ASSERT_TRUE(stream.read_tokens(2));
  FakeReplica* self = nullptr;
  const auto b = cluster.join(
      "b", [](grpc::ServerContext& context, const v1::GenerateRequest&, FakeReplica::Writer& writer) {
        send_token(writer, 2);
        return wait_for_the_end(context);
      });
  self = &b->replica;
  a->replica.stop();
  ASSERT_TRUE(stream.read_tokens(3));
  const auto c = cluster.join("c", continue_to(kTokens));
  self->stop();
  const grpc::Status status = stream.finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(tokens_sent(status), "3");
  EXPECT_EQ(rpc::error_info(status)->metadata().at("replica_id"), "b");
  EXPECT_TRUE(c->replica.requests().empty());
  EXPECT_EQ(cluster.describe().requests_failed(), 1);
  EXPECT_EQ(cluster.describe().requests_resumed(), 1);
}

TEST(FailoverTest, WithoutResumesADeathIsTheEnd) {
  CoordinatorOptions options = on_a_free_port();
  options.frontend.request.max_resumes = 0;
  TestCluster cluster(options);
  const auto a = cluster.join("a", send_part(true, 2, false, false));
  Stream stream(*cluster.inference, token_request());
  ASSERT_TRUE(stream.read_tokens(2));
  const auto b = cluster.join("b", continue_to(kTokens));
  a->replica.stop();
  const grpc::Status status = stream.finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(tokens_sent(status), "2");
  EXPECT_TRUE(b->replica.requests().empty());
}

TEST(FailoverTest, RequestThatIsBeingCancelledIsNotResumed) {
  TestCluster cluster;
  const auto a = cluster.join("a", send_part(true, 2, false, false));  // heeds no Cancel
  Stream stream(*cluster.inference, token_request("r"));
  ASSERT_TRUE(stream.read_tokens(2));
  const auto b = cluster.join("b", continue_to(kTokens));
  EXPECT_TRUE(cancel(cluster, "r").ok());
  EXPECT_TRUE(a->replica.is_cancelled("r"));
  a->replica.stop();
  EXPECT_EQ(stream.finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(b->replica.requests().empty());
}

TEST(FailoverTest, CancelReachesTheReplicaThatTookOver) {
  TestCluster cluster;
  const auto a = cluster.join("a", send_part(true, 2, false, false));
  Stream stream(*cluster.inference, token_request("r"));
  ASSERT_TRUE(stream.read_tokens(2));
  FakeReplica* self = nullptr;
  const auto b = cluster.join("b", send_then_wait(self, 1));
  self = &b->replica;
  a->replica.stop();
  ASSERT_TRUE(stream.read_tokens(3));
  EXPECT_TRUE(cancel(cluster, "r").ok());
  EXPECT_TRUE(stream.finish().ok());
  EXPECT_EQ(stream.finish_reason, v1::FINISH_REASON_CANCELLED);
  EXPECT_TRUE(b->replica.is_cancelled("r"));
  EXPECT_FALSE(a->replica.is_cancelled("r"));
}

}  // namespace
}  // namespace trireme
