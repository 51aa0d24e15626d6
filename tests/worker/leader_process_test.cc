// A leader as a whole, but for its engine: health, reflection, drain.
#include "worker/leader_process.h"

#include <gtest/gtest.h>

#include <future>
#include <thread>

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include "grpc/health/v1/health.grpc.pb.h"
#include "tests/worker/byte_tokenizer.h"
#include "tests/worker/fake_engine.h"
#include "worker/replica_server.h"

namespace trireme::worker {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Serving = grpc::health::v1::HealthCheckResponse;

class LeaderProcessTest : public testing::Test {
 protected:
  LeaderProcessTest() {
    model.name = "bytes";
    model.vocab_size = kByteVocabSize;
    model.max_context_len = 1 << 20;
    model.tokenizer = tokenizer.get();
    options.health_timeout = milliseconds(700);
    options.leader.idle_interval = milliseconds(20);
  }

  void start() {
    std::promise<rpc::Address> ready;
    auto address = ready.get_future();
    thread = std::thread([this, ready = std::move(ready)]() mutable {
      result = run_leader_process(
          engine, [] { return uint64_t{0}; }, model, options, StopSignal::install(),
          [&](const LeaderAddresses& bound) { ready.set_value(bound.inference); });
    });
    ASSERT_EQ(address.wait_for(seconds(20)), std::future_status::ready);
    channel = rpc::create_channel(address.get().text());
    stub = v1::Inference::NewStub(channel);
  }

  ~LeaderProcessTest() override {
    engine.let_go();
    if (!thread.joinable()) return;
    StopSignal::install().raise();
    StopSignal::install().raise();
    thread.join();
  }

  absl::Status join() {
    thread.join();
    return result;
  }

  bool wait_for_health(const std::string& service, Serving::ServingStatus status) {
    const auto health = grpc::health::v1::Health::NewStub(channel);
    grpc::ClientContext context;
    context.set_deadline(gpr_time_from_seconds(20, GPR_TIMESPAN));
    grpc::health::v1::HealthCheckRequest asked;
    asked.set_service(service);
    auto reader = health->Watch(&context, asked);
    Serving response;
    while (reader->Read(&response)) {
      if (response.status() == status) {
        context.TryCancel();
        reader->Finish();
        return true;
      }
    }
    reader->Finish();
    return false;
  }

  std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> generate(grpc::ClientContext& context,
                                                                     int32_t max_tokens) {
    context.set_deadline(gpr_time_from_seconds(20, GPR_TIMESPAN));
    v1::GenerateRequest request;
    request.set_text("x");
    request.mutable_stopping()->set_max_tokens(max_tokens);
    return stub->Generate(&context, request);
  }

  /// Asks again and again, while steps are held, until new requests are no longer taken.
  bool wait_until_refused() {
    const auto deadline = std::chrono::steady_clock::now() + seconds(20);
    while (std::chrono::steady_clock::now() < deadline) {
      grpc::ClientContext context;
      context.set_deadline(gpr_time_from_millis(200, GPR_TIMESPAN));
      v1::GenerateRequest request;
      request.set_text("x");
      request.mutable_stopping()->set_max_tokens(1);
      auto reader = stub->Generate(&context, request);
      v1::GenerateResponse message;
      while (reader->Read(&message)) {
      }
      if (reader->Finish().error_code() == grpc::StatusCode::UNAVAILABLE) return true;
    }
    return false;
  }

  std::unique_ptr<Tokenizer> tokenizer = byte_tokenizer();
  ServedModel model;
  FakeEngine engine;
  LeaderProcessOptions options;
  absl::Status result;
  std::thread thread;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::Inference::Stub> stub;
};

TEST_F(LeaderProcessTest, HealthFollowsTheStepLoop) {
  start();
  EXPECT_TRUE(wait_for_health("", Serving::SERVING));
  EXPECT_TRUE(wait_for_health("trireme.v1.Inference", Serving::SERVING));
  engine.hold();
  grpc::ClientContext context;
  auto reader = generate(context, 1000);
  EXPECT_TRUE(wait_for_health("", Serving::NOT_SERVING));  // a step that does not end
  engine.let_go();
  EXPECT_TRUE(wait_for_health("", Serving::SERVING));
}

/// The services a server says it has, asked with bytes alone: list_services is field 7, a string.
std::string list_services(const std::shared_ptr<grpc::Channel>& channel) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  context.set_deadline(gpr_time_from_seconds(20, GPR_TIMESPAN));
  grpc::CompletionQueue queue;
  const auto wait = [&queue] {
    void* tag = nullptr;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  };
  const auto call =
      stub.PrepareCall(&context, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", &queue);
  call->StartCall(nullptr);
  EXPECT_TRUE(wait());
  const grpc::Slice asked("\x3a\x01*");
  call->WriteLast(grpc::ByteBuffer(&asked, 1), grpc::WriteOptions(), nullptr);
  EXPECT_TRUE(wait());
  grpc::ByteBuffer answer;
  call->Read(&answer, nullptr);
  EXPECT_TRUE(wait());
  grpc::Slice bytes;
  EXPECT_TRUE(answer.TrySingleSlice(&bytes).ok());
  grpc::Status status;
  call->Finish(&status, nullptr);
  EXPECT_TRUE(wait());
  EXPECT_TRUE(status.ok()) << status.error_message();
  queue.Shutdown();
  while (wait()) {
  }
  return {reinterpret_cast<const char*>(bytes.begin()), bytes.size()};
}

TEST_F(LeaderProcessTest, ReflectionListsInferenceAndHealth) {
  start();
  const std::string services = list_services(channel);
  EXPECT_NE(services.find("trireme.v1.Inference"), std::string::npos);
  EXPECT_NE(services.find("grpc.health.v1.Health"), std::string::npos);
}

TEST_F(LeaderProcessTest, SignalDrainsAndEndsInOrder) {
  start();
  engine.hold();
  grpc::ClientContext context, late_context;
  auto reader = generate(context, 5);
  ASSERT_TRUE(engine.wait_for([](const auto& counts) { return counts.submitted.size() == 1; }));
  StopSignal::install().raise();
  EXPECT_TRUE(wait_for_health("", Serving::NOT_SERVING));
  v1::GenerateResponse message;
  auto late = generate(late_context, 5);
  EXPECT_FALSE(late->Read(&message));
  EXPECT_EQ(late->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  engine.let_go();
  int tokens = 0;
  while (reader->Read(&message)) {
    for (const auto& delta : message.deltas()) tokens += delta.token_ids_size();
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(tokens, 5);
  EXPECT_TRUE(join().ok());
  EXPECT_EQ(engine.counts().stops, 1);
}

TEST_F(LeaderProcessTest, SecondSignalCutsOffWhatRuns) {
  start();
  engine.hold();  // output that piles up unread would end the request for another reason
  grpc::ClientContext context;
  auto reader = generate(context, 1 << 19);
  ASSERT_TRUE(engine.wait_for([](const auto& counts) { return counts.submitted.size() == 1; }));
  StopSignal::install().raise();
  StopSignal::install().raise();
  engine.permit(1);
  v1::GenerateResponse message;
  while (reader->Read(&message)) engine.permit(1);
  const grpc::Status status = reader->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE) << status.error_message();
  EXPECT_TRUE(join().ok());
}

TEST_F(LeaderProcessTest, WithoutACoordinatorItDrainsAndGivesUp) {
  options.coordinator = "127.0.0.1:1";
  options.lease.first_retry = milliseconds(10);
  options.lease.give_up_after = seconds(2);  // the request below must come first
  engine.hold();
  start();
  grpc::ClientContext context;
  auto reader = generate(context, 5);  // of a client that calls it directly
  ASSERT_TRUE(engine.wait_for([](const auto& counts) { return counts.submitted.size() == 1; }));
  EXPECT_TRUE(wait_until_refused());
  engine.let_go();
  int tokens = 0;
  v1::GenerateResponse message;
  while (reader->Read(&message)) {
    for (const auto& delta : message.deltas()) tokens += delta.token_ids_size();
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(tokens, 5);
  const absl::Status status = join();
  EXPECT_TRUE(absl::IsAborted(status)) << status;
  EXPECT_NE(status.message().find("without coordinator 127.0.0.1:1 for 2000 ms ("), std::string::npos)
      << status;
  EXPECT_EQ(engine.counts().stops, 0);  // whoever could take a stop plan may be out of reach
}

TEST_F(LeaderProcessTest, PortInUseIsSaidAndFollowersAreStopped) {
  start();
  options.listen.port = 0;
  FakeEngine other_engine;
  LeaderProcessOptions same_port = options;
  const auto peer = v1::Inference::NewStub(channel);
  // The first process listens where the channel leads.
  grpc::ClientContext context;
  v1::GetModelResponse response;
  ASSERT_TRUE(peer->GetModel(&context, {}, &response).ok());
  const std::string uri = context.peer();
  same_port.listen = *rpc::parse_address(uri.substr(uri.find(':') + 1));
  const absl::Status status = run_leader_process(
      other_engine, [] { return uint64_t{0}; }, model, same_port, StopSignal::install(),
      [](const LeaderAddresses&) { FAIL() << "it must not listen"; });
  EXPECT_TRUE(absl::IsUnavailable(status));
  EXPECT_NE(status.message().find(same_port.listen.text()), std::string::npos) << status;
  EXPECT_EQ(other_engine.counts().stops, 1);
  const absl::Status early = check_listen(same_port.listen, false);
  EXPECT_TRUE(absl::IsUnavailable(early));
  EXPECT_NE(early.message().find("Address already in use"), std::string::npos) << early;
  same_port.listen.port = 0;
  EXPECT_TRUE(check_listen(same_port.listen, false).ok());
}

TEST_F(LeaderProcessTest, OpenAddressNeedsInsecure) {
  options.listen.host = "0.0.0.0";
  EXPECT_TRUE(absl::IsFailedPrecondition(check_listen(options.listen, false)));
  EXPECT_TRUE(check_listen(options.listen, true).ok());
  const absl::Status status = run_leader_process(
      engine, [] { return uint64_t{0}; }, model, options, StopSignal::install(),
      [](const LeaderAddresses&) { FAIL() << "it must not listen"; });
  EXPECT_TRUE(absl::IsFailedPrecondition(status));
}

}  // namespace
}  // namespace trireme::worker
