// How much of the queue one client may take.

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "proto/support/errors.h"
#include "tests/worker/service_fixture.h"

namespace trireme::worker {
namespace {

class ClientQueueTest : public ServiceFixture {
 protected:
  /// A request of a client of its own runs until expect_all_served(); of each client 3 may wait.
  void start_busy() {
    FakeEngine::Script script;
    script.max_running = 1;
    script.token = [end = may_end](const Request&, int32_t) { return *end ? kEndToken : int32_t{'x'}; };
    LeaderOptions options;
    options.queue.max_requests_per_client = 3;
    start(script, {}, options);
    engine->hold();
    open("first");
    ASSERT_TRUE(engine->wait_for([](const auto& counts) { return counts.submitted.size() == 1; }));
    ASSERT_TRUE(await_waiting(0));
  }

  static std::unique_ptr<grpc::ClientContext> context_of(const std::string& client) {
    auto made = context();
    if (!client.empty()) made->AddMetadata("x-trireme-client", client);
    return made;
  }
  static v1::GenerateRequest samples(int n) {
    v1::GenerateRequest made = request();
    made.mutable_output()->set_n(n);
    return made;
  }
  void open(const std::string& client, int n = 1) {
    contexts.push_back(context_of(client));
    readers.push_back(stub->Generate(contexts.back().get(), samples(n)));
  }
  bool await_waiting(int64_t count) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (leader->status().waiting.requests != count && std::chrono::steady_clock::now() < deadline)
      std::this_thread::yield();
    return leader->status().waiting.requests == count;
  }
  /// How a call ends that is refused.
  grpc::Status refusal(grpc::ClientContext& call_context, int n = 1) {
    return read_all(*stub->Generate(&call_context, samples(n))).status;
  }
  void expect_full(const std::string& client, int n = 1) {
    const grpc::Status status = refusal(*context_of(client), n);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED) << status.error_message();
    EXPECT_NE(status.error_message().find("queue of client"), std::string::npos) << status.error_message();
    ASSERT_TRUE(rpc::retry_info(status).has_value());
    EXPECT_EQ(rpc::retry_info(status)->retry_delay().seconds(), 1);
  }
  void expect_all_served() {
    *may_end = true;
    engine->let_go();
    for (auto& reader : readers) EXPECT_TRUE(read_all(*reader).status.ok());
  }

  const std::shared_ptr<std::atomic<bool>> may_end = std::make_shared<std::atomic<bool>>(false);
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>>> readers;
};

TEST_F(ClientQueueTest, FullOneIsRefusedWithADelayAndOthersAreLetIn) {
  start_busy();
  for (int i = 0; i < 3; ++i) open("a");
  ASSERT_TRUE(await_waiting(3));
  expect_full("a");
  open("b");
  open("");
  ASSERT_TRUE(await_waiting(5));
  expect_full("a");
  expect_all_served();
}

TEST_F(ClientQueueTest, AddressIsTheClientWhateverTheConnection) {
  start_busy();
  for (int i = 0; i < 3; ++i) open("");
  ASSERT_TRUE(await_waiting(3));
  grpc::ChannelArguments own_connection;
  own_connection.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  const auto channel =
      grpc::CreateCustomChannel(server->address().text(), grpc::InsecureChannelCredentials(), own_connection);
  stub = v1::Inference::NewStub(channel);
  expect_full("");
  open("b");
  ASSERT_TRUE(await_waiting(4));
  expect_all_served();
}

TEST_F(ClientQueueTest, EverySampleWaits) {
  start_busy();
  open("a", 2);
  ASSERT_TRUE(await_waiting(2));
  expect_full("a", 2);
  open("a", 1);
  open("b", 8);  // a client's first one
  ASSERT_TRUE(await_waiting(11));
  expect_full("a");
  expect_all_served();
}

TEST_F(ClientQueueTest, CancelledOnesMakeRoom) {
  start_busy();
  for (int i = 0; i < 3; ++i) open("a");
  ASSERT_TRUE(await_waiting(3));
  contexts.back()->TryCancel();
  EXPECT_EQ(read_all(*readers.back()).status.error_code(), grpc::StatusCode::CANCELLED);
  readers.pop_back();
  // The loop looks for commands between steps.
  for (int steps = 1; leader->status().waiting.requests != 2; ++steps) {
    ASSERT_LE(steps, 10'000);
    engine->permit(1);
    ASSERT_TRUE(engine->wait_for([steps](const auto& counts) { return counts.steps >= steps; }));
  }
  open("a");
  ASSERT_TRUE(await_waiting(3));
  expect_full("a");
  expect_all_served();
}

TEST_F(ClientQueueTest, RequestThatItsReplicaLostIsLetInAgain) {
  start_busy();
  for (int i = 0; i < 3; ++i) open("a");
  ASSERT_TRUE(await_waiting(3));
  contexts.push_back(context_of("a"));
  contexts.back()->AddMetadata("x-trireme-resumes", "1");
  readers.push_back(stub->Generate(contexts.back().get(), samples(1)));
  ASSERT_TRUE(await_waiting(4));
  expect_full("a");
  expect_all_served();
}

TEST_F(ClientQueueTest, NameThatIsNoneIsAnError) {
  start(saying("x"));
  const grpc::Status status = refusal(*context_of(std::string(129, 'a')));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  const auto bad = rpc::bad_request(status);
  ASSERT_TRUE(bad.has_value());
  EXPECT_EQ(bad->field_violations(0).field(), "x-trireme-client");
}

}  // namespace
}  // namespace trireme::worker
