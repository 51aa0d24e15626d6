#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <memory>
#include <vector>

#include "worker/delivery.h"
#include "worker/outbox.h"
#include "worker/task_pool.h"

namespace trireme::worker {
namespace {

TokenOutput token(int32_t id) {
  TokenOutput output;
  output.token_id = id;
  return output;
}

struct Sink : RequestSink {
  using RequestSink::RequestSink;
  void deliver() override {
    status = outbox.drain(outputs);
    if (++deliveries == expected_deliveries) done.set_value();
  }
  std::vector<TokenOutput> outputs;
  absl::Status status;
  int deliveries = 0;
  int expected_deliveries = 1;
  std::promise<void> done;
};

TEST(OutboxTest, ConsumerIsToldOncePerLook) {
  Outbox outbox;
  EXPECT_EQ(outbox.push(token(1)), Outbox::Push::kWake);
  EXPECT_EQ(outbox.push(token(2)), Outbox::Push::kQueued);
  std::vector<TokenOutput> outputs;
  EXPECT_TRUE(outbox.drain(outputs).ok());
  ASSERT_EQ(outputs.size(), 2u);
  EXPECT_EQ(outputs[1].token_id, 2);
  EXPECT_EQ(outbox.push(token(3)), Outbox::Push::kWake);
}

TEST(OutboxTest, UnreadBytesAreBounded) {
  Outbox outbox(4 * sizeof(TokenOutput));
  for (int i = 0; i < 4; ++i) EXPECT_NE(outbox.push(token(i)), Outbox::Push::kOverflow);
  EXPECT_EQ(outbox.push(token(4)), Outbox::Push::kOverflow);
  std::vector<TokenOutput> outputs;
  EXPECT_TRUE(outbox.drain(outputs).ok());
  EXPECT_EQ(outputs.size(), 4u);
}

TEST(OutboxTest, TopLogprobsCountThePromptsDoNot) {
  Outbox outbox(8 * sizeof(TokenOutput));
  TokenOutput first = token(0);
  const PromptLogprobs prompt{0, std::vector<float>(10'000), {}};
  first.more = std::make_shared<OutputLogprobs>(OutputLogprobs{{}, std::make_shared<PromptLogprobs>(prompt)});
  EXPECT_EQ(outbox.push(first), Outbox::Push::kWake);
  EXPECT_EQ(outbox.unread_bytes(), sizeof(TokenOutput));
  TokenOutput second = token(1);
  second.more = std::make_shared<OutputLogprobs>(OutputLogprobs{std::vector<TokenLogprob>(20), nullptr});
  EXPECT_EQ(outbox.push(second), Outbox::Push::kQueued);
  EXPECT_EQ(outbox.unread_bytes(), 2 * sizeof(TokenOutput) + 20 * sizeof(TokenLogprob));
  EXPECT_EQ(outbox.push(second), Outbox::Push::kOverflow);
  std::vector<TokenOutput> outputs;
  EXPECT_TRUE(outbox.drain(outputs).ok());
  ASSERT_EQ(outputs.size(), 2u);
  EXPECT_NE(outputs[0].prompt_logprobs(), nullptr);
  EXPECT_EQ(outputs[1].top_logprobs().size(), 20u);
  EXPECT_EQ(outbox.unread_bytes(), 0u);
}

TEST(OutboxTest, BytesTheConsumerHoldsCount) {
  Outbox outbox(4 * sizeof(TokenOutput));
  outbox.hold(4 * sizeof(TokenOutput));
  EXPECT_EQ(outbox.push(token(0)), Outbox::Push::kOverflow);
  outbox.release(sizeof(TokenOutput));
  EXPECT_EQ(outbox.push(token(0)), Outbox::Push::kWake);
  EXPECT_EQ(outbox.unread_bytes(), 4 * sizeof(TokenOutput));
}

TEST(OutboxTest, ErrorComesBehindTheTokensAndTheFirstStays) {
  Outbox outbox;
  outbox.push(token(1));
  outbox.fail(absl::CancelledError("first"));
  outbox.fail(absl::InternalError("second"));
  EXPECT_EQ(outbox.push(token(2)), Outbox::Push::kOverflow);
  std::vector<TokenOutput> outputs;
  EXPECT_EQ(outbox.drain(outputs), absl::CancelledError("first"));
  EXPECT_EQ(outputs.size(), 1u);
}

TEST(OutboxTest, ClosedOutboxTakesNothing) {
  Outbox outbox;
  outbox.close();
  EXPECT_EQ(outbox.push(token(1)), Outbox::Push::kClosed);
  EXPECT_EQ(outbox.fail(absl::InternalError("x")), Outbox::Push::kClosed);
}

TEST(DeliveryTest, PostedSinksAreDeliveredByAnotherThread) {
  Delivery delivery;
  auto sink = std::make_shared<Sink>();
  sink->outbox.push(token(5));
  std::vector<std::shared_ptr<RequestSink>> sinks{sink};
  delivery.post(sinks);
  EXPECT_TRUE(sinks.empty());
  ASSERT_EQ(sink->done.get_future().wait_for(std::chrono::seconds(10)), std::future_status::ready);
  EXPECT_EQ(sink->outputs.size(), 1u);
}

TEST(DeliveryTest, DestructionDeliversWhatWasPosted) {
  auto sink = std::make_shared<Sink>();
  sink->outbox.push(token(5));
  {
    Delivery delivery;
    std::vector<std::shared_ptr<RequestSink>> sinks{sink};
    delivery.post(sinks);
  }
  EXPECT_EQ(sink->deliveries, 1);
}

TEST(TaskPoolTest, FullQueueRefuses) {
  std::promise<void> go;
  auto gate = go.get_future().share();
  std::promise<void> started;
  int ran = 0;
  {
    TaskPool pool(1, 2);
    ASSERT_TRUE(pool.try_post([&] {
      started.set_value();
      gate.wait_for(std::chrono::seconds(20));
      ++ran;
    }));
    ASSERT_EQ(started.get_future().wait_for(std::chrono::seconds(10)), std::future_status::ready);
    EXPECT_TRUE(pool.try_post([&] { ++ran; }));
    EXPECT_TRUE(pool.try_post([&] { ++ran; }));
    EXPECT_FALSE(pool.try_post([&] { ++ran; }));
    go.set_value();
  }
  EXPECT_EQ(ran, 3);
}

}  // namespace
}  // namespace trireme::worker
