#include "proto/support/endpoint.h"

#include <gmock/gmock.h>
#include <grpcpp/server.h>
#include <gtest/gtest.h>

#include "trireme/v1/inference.grpc.pb.h"

namespace trireme::rpc {
namespace {

using ::testing::HasSubstr;

TEST(EndpointTest, ParsesHostAndPort) {
  for (const auto& [text, host, port] :
       std::vector<std::tuple<std::string, std::string, int>>{{"127.0.0.1:50051", "127.0.0.1", 50051},
                                                              {"localhost:0", "localhost", 0},
                                                              {"[::1]:65535", "::1", 65535},
                                                              {"node-7.cluster:1", "node-7.cluster", 1}}) {
    const auto address = parse_address(text);
    ASSERT_TRUE(address.ok()) << text;
    EXPECT_EQ(address->host, host);
    EXPECT_EQ(address->port, port);
    EXPECT_EQ(address->text(), text);
  }
}

TEST(EndpointTest, RefusesWhatIsNoAddress) {
  for (const char* text : {"", ":", ":50051", "host", "host:", "host:x", "host:-1", "host:65536", "host:+1",
                           "host: 1", "host:99999999999999999999", "::1:50051", "[::1]", "[::1", "[::1]50051",
                           "[]:1", "a b:1", "http://host:1"}) {
    const auto address = parse_address(text);
    EXPECT_EQ(address.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(address.status().message()), HasSubstr(text));
  }
}

TEST(EndpointTest, KnowsLoopback) {
  for (const char* host : {"127.0.0.1", "127.1.2.3", "localhost", "::1"})
    EXPECT_TRUE(is_loopback(host)) << host;
  for (const char* host : {"0.0.0.0", "::", "10.0.0.1", "127.example.com", "example.com", "128.0.0.1"})
    EXPECT_FALSE(is_loopback(host)) << host;
}

TEST(EndpointTest, OpenAddressNeedsInsecure) {
  grpc::ServerBuilder builder;
  int port = -1;
  const absl::Status refused = configure_server(builder, {"0.0.0.0", 0}, false, &port);
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("--insecure"));
  EXPECT_TRUE(configure_server(builder, {"0.0.0.0", 0}, true, &port).ok());
}

class EchoModel : public v1::Inference::CallbackService {
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context, const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override {
    response->add_token_ids(static_cast<int32_t>(request->text().size()));
    auto* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
};

std::unique_ptr<grpc::Server> start_server(EchoModel& service, int wanted_port, int* port) {
  grpc::ServerBuilder builder;
  EXPECT_TRUE(configure_server(builder, {"127.0.0.1", wanted_port}, false, port).ok());
  builder.RegisterService(&service);
  return builder.BuildAndStart();
}

TEST(EndpointTest, ServerAndChannelMeet) {
  EchoModel service;
  int port = 0;
  const auto server = start_server(service, 0, &port);
  ASSERT_NE(server, nullptr);
  ASSERT_GT(port, 0);
  const auto stub = v1::Inference::NewStub(create_channel(Address{"127.0.0.1", port}.text()));
  v1::TokenizeRequest request;
  request.set_text("abc");
  const auto call = [&](const std::string& metadata) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    if (!metadata.empty()) context.AddMetadata("x-filler", metadata);
    v1::TokenizeResponse response;
    const grpc::Status status = stub->Tokenize(&context, request, &response);
    if (status.ok()) {
      EXPECT_EQ(response.token_ids(0), 3);
    }
    return status.error_code();
  };
  EXPECT_EQ(call(""), grpc::StatusCode::OK);
  EXPECT_EQ(call(std::string(12'000, 'x')), grpc::StatusCode::OK);
  EXPECT_EQ(call(std::string(20'000, 'x')), grpc::StatusCode::RESOURCE_EXHAUSTED);
  server->Shutdown();
}

TEST(EndpointTest, PortInUseStartsNoServer) {
  EchoModel first_service, second_service;
  int port = 0, second_port = -1;
  const auto first = start_server(first_service, 0, &port);
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(start_server(second_service, port, &second_port), nullptr);
  EXPECT_EQ(second_port, 0);
  first->Shutdown();
}

}  // namespace
}  // namespace trireme::rpc
