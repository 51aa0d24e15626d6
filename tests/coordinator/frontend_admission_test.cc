// What a coordinator does not let in.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/coordinator/test_cluster.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;

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
