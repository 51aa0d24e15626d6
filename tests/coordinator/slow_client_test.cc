// Clients that do not read, through a proxy that stops reading for them.

#include <gtest/gtest.h>

#include "tests/coordinator/failover_scripts.h"
#include "tests/coordinator/tcp_proxy.h"

namespace trireme {
namespace {

constexpr int kMessages = 10'000;  // of 4 kB: ten times what gRPC and the sockets hold on the way

FakeReplica::Script flood(std::atomic<int>& written) {
  return [&](grpc::ServerContext&, const v1::GenerateRequest&, FakeReplica::Writer& writer) {
    v1::GenerateResponse response;
    v1::Delta* delta = response.add_deltas();
    delta->set_text(std::string(4096, 'x'));
    delta->add_token_ids(1);
    for (; written < kMessages; ++written) {
      if (!writer.Write(response)) return grpc::Status::CANCELLED;
    }
    send_end(writer, kMessages, v1::FINISH_REASON_LENGTH);
    return grpc::Status::OK;
  };
}

/// Flow control stops the replica: the count stands still.
bool stands_still(const std::atomic<int>& written) {
  int last = -1, unchanged = 0;
  return eventually([&] {
    unchanged = written == last ? unchanged + 1 : 0;
    last = written;
    return unchanged == 100;
  });
}

TEST(SlowClientTest, WriteThatIsNotTakenInTimeEndsThatRequestAlone) {
  CoordinatorOptions options = on_a_free_port();
  options.frontend.request.write_timeout = std::chrono::milliseconds(500);
  TestCluster cluster(options);
  std::atomic<int> written{0};
  const auto a = cluster.join("a", flood(written));
  TcpProxy proxy(rpc::parse_address(cluster.address())->port);
  const auto stub =
      v1::Inference::NewStub(rpc::create_channel(rpc::Address{"127.0.0.1", proxy.port()}.text()));
  Stream deaf(*stub, token_request("deaf"));
  ASSERT_TRUE(deaf.read_tokens(1));
  proxy.go_silent();
  const auto b = cluster.join("b", continue_to(kTokens));
  ASSERT_TRUE(stands_still(written));
  Stream neighbour(*cluster.inference, token_request());
  expect_whole(neighbour);
  EXPECT_TRUE(eventually([&] { return a->replica.num_running() == 0; }));
  EXPECT_LT(written, kMessages / 2) << "its writes did not fail";
  EXPECT_TRUE(eventually([&] { return cluster.describe().requests_cancelled() == 1; }));
  EXPECT_EQ(cluster.describe().requests_running(), 0);
  EXPECT_EQ(cluster.describe().requests_failed(), 0);
  EXPECT_EQ(b->replica.requests().size(), 1u) << "the slow one was sent there, too";
  deaf.cancel();
}

TEST(SlowClientTest, ReplicaThatGivesUpOnASlowClientIsNotLost) {
  TestCluster cluster;
  std::atomic<int> written{0};
  grpc::ServerContext* context_of_a = nullptr;
  std::atomic<bool> over{false};
  const FakeReplica::Script flooding = flood(written);
  const auto a = cluster.join("a", [&](grpc::ServerContext& context, const v1::GenerateRequest& request,
                                       FakeReplica::Writer& writer) {
    context_of_a = &context;
    const grpc::Status status = flooding(context, request, writer);
    over = true;
    return status;
  });
  Stream stream(*cluster.inference, token_request());
  ASSERT_TRUE(stream.read_tokens(1));
  ASSERT_TRUE(stands_still(written));
  const auto b = cluster.join("b", continue_to(kTokens));
  // More than a second: what a client is slow by, and no breath.
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(1500);
  ASSERT_TRUE(eventually([&] { return std::chrono::steady_clock::now() > deadline; }));
  context_of_a->TryCancel();
  ASSERT_TRUE(eventually([&] { return over.load(); }));
  const grpc::Status status = stream.finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED) << status.error_message();
  EXPECT_TRUE(b->replica.requests().empty());
  EXPECT_EQ(cluster.describe().requests_resumed(), 0);
}

}  // namespace
}  // namespace trireme
