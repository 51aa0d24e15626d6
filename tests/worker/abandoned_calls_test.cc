// Calls that end before their last token: cancelled, out of time, or with a client that is gone or does not
// read.
#include <gtest/gtest.h>

#include <thread>

#include "proto/support/errors.h"
#include "tests/worker/service_fixture.h"
#include "worker/generate_service.h"

namespace trireme::worker {
namespace {

using std::chrono::seconds;

class AbandonedCallTest : public ServiceFixture {
 protected:
  /// A held engine goes on step by step until it is told to cancel.
  bool step_until_cancelled() {
    const auto deadline = std::chrono::steady_clock::now() + seconds(10);
    while (engine->counts().cancelled.empty() && std::chrono::steady_clock::now() < deadline) {
      engine->permit(1);
      std::this_thread::yield();
    }
    return engine->counts().cancelled.size() == 1;
  }
};

TEST_F(AbandonedCallTest, CancelEndsTheStreamInGoodOrder) {
  start(saying(std::string(100000, 'x')));
  engine->hold();
  v1::GenerateRequest asked = request();
  asked.set_request_id("victim");
  auto call_context = context();
  auto reader = stub->Generate(call_context.get(), asked);
  engine->permit(2);
  v1::GenerateResponse message;
  ASSERT_TRUE(reader->Read(&message));
  v1::CancelRequest cancel;
  cancel.set_request_id("victim");
  v1::CancelResponse cancelled;
  ASSERT_TRUE(stub->Cancel(context().get(), cancel, &cancelled).ok());
  engine->permit(1);
  const Stream stream = read_all(*reader);
  EXPECT_TRUE(stream.status.ok());
  EXPECT_EQ(stream.finish_reason, v1::FINISH_REASON_CANCELLED);
  EXPECT_TRUE(stream.messages.back().has_usage());
  EXPECT_LE(stream.messages.back().usage().completion_tokens(), 3);
  // Once more, and for one that never was: nothing happens.
  EXPECT_TRUE(stub->Cancel(context().get(), cancel, &cancelled).ok());
  cancel.set_request_id("nobody");
  EXPECT_TRUE(stub->Cancel(context().get(), cancel, &cancelled).ok());
}

TEST_F(AbandonedCallTest, ClientThatLeavesIsCancelledWithinAStep) {
  start(saying(std::string(100000, 'x')));
  engine->hold();
  auto call_context = context();
  auto reader = stub->Generate(call_context.get(), request());
  engine->permit(1);
  v1::GenerateResponse message;
  ASSERT_TRUE(reader->Read(&message));
  call_context->TryCancel();
  reader->Finish();
  EXPECT_TRUE(step_until_cancelled());
  EXPECT_FALSE(engine->has_work());
}

TEST_F(AbandonedCallTest, PassedDeadlineFreesTheRequest) {
  start(saying(std::string(1 << 20, 'x')));
  engine->hold();
  auto call_context = std::make_unique<grpc::ClientContext>();
  call_context->set_deadline(gpr_time_from_millis(1000, GPR_TIMESPAN));
  auto reader = stub->Generate(call_context.get(), request());
  ASSERT_TRUE(engine->wait_for([](const auto& counts) { return counts.submitted.size() == 1; }));
  EXPECT_EQ(read_all(*reader).status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(step_until_cancelled());
  EXPECT_FALSE(engine->has_work());
}

TEST_F(AbandonedCallTest, ReaderThatNeverReadsLosesItsRequestAndNobodyElse) {
  GenerateServiceOptions options;
  options.max_unread_bytes = 128 << 10;  // enough for all that the neighbour gets
  FakeEngine::Script script = saying(std::string(1 << 22, 'x'));
  script.tokens_per_step = 64;
  start(script, options);
  engine->hold();
  v1::GenerateRequest asked = request("deaf", 1 << 23);
  asked.mutable_output()->set_logprobs(0);  // large messages: gRPC itself takes some megabytes
  auto deaf_context = context(60);
  auto deaf = stub->Generate(deaf_context.get(), asked);
  ASSERT_TRUE(engine->wait_for([](const auto& counts) { return counts.submitted.size() == 1; }));
  auto call_context = context(60);
  auto neighbour = stub->Generate(call_context.get(), request("other", 1000));
  engine->let_go();
  EXPECT_EQ(read_all(*neighbour).text.size(), 1000u);
  EXPECT_TRUE(engine->wait_for([](const auto& counts) { return counts.cancelled.size() == 1; }));
  EXPECT_EQ(read_all(*deaf).status.error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(AbandonedCallTest, WriteThatIsNotTakenInTimeEndsItsRequestAlone) {
  GenerateServiceOptions options;
  options.max_unread_bytes = 1 << 30;
  options.write_timeout = std::chrono::milliseconds(200);
  FakeEngine::Script script = saying("abcdef");
  script.finish = [](const Request& asked, int32_t n) {
    return asked.prompt[0] == 'd' || n < 1000 ? FinishReason::none : FinishReason::stop;
  };
  script.token = [](const Request&, int32_t n) { return nth_byte("abcdef", n % 6); };
  script.tokens_per_step = 64;
  start(script, options);
  v1::GenerateRequest asked = request("deaf", 1 << 23);
  asked.mutable_output()->set_logprobs(0);
  auto deaf_context = context(60);
  auto deaf = stub->Generate(deaf_context.get(), asked);
  EXPECT_TRUE(engine->wait_for([](const auto& counts) { return counts.submitted.size() == 1; }));
  EXPECT_TRUE(generate(request("other", 1 << 20)).status.ok());
  EXPECT_TRUE(engine->wait_for([](const auto& counts) { return counts.cancelled.size() == 1; }));
  EXPECT_EQ(read_all(*deaf).status.error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(AbandonedCallTest, LastWriteThatIsNotTakenInTimeEndsTheCallToo) {
  GenerateServiceOptions options;
  options.max_unread_bytes = 1 << 30;
  options.write_timeout = std::chrono::milliseconds(200);
  FakeEngine::Script script;
  script.token = [](const Request&, int32_t n) { return 'a' + n % 26; };
  script.tokens_per_step = 64;
  start(script, options);
  v1::GenerateRequest asked = request("deaf", 1 << 19);
  asked.set_request_id("deaf");
  asked.mutable_output()->set_logprobs(0);  // more bytes than gRPC and the sockets hold
  auto deaf_context = context(60);
  auto deaf = stub->Generate(deaf_context.get(), asked);
  ASSERT_TRUE(engine->wait_for([](const auto& counts) { return counts.submitted.size() == 1; }));
  // From here on no token comes: what ends the call is its own time limit. Its id is free then.
  v1::GenerateRequest same = request("x", 1);
  same.set_request_id("deaf");
  bool free = false;
  const auto deadline = std::chrono::steady_clock::now() + seconds(30);
  while (!free && std::chrono::steady_clock::now() < deadline) free = generate(same).status.ok();
  EXPECT_TRUE(free);
  // CANCELLED, but where so much became one message that this side refuses it.
  EXPECT_FALSE(read_all(*deaf).status.ok());
}

}  // namespace
}  // namespace trireme::worker
