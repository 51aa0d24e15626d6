#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <memory>
#include <thread>
#include <vector>

#include "worker/delivery.h"
#include "worker/inbox.h"
#include "worker/outbox.h"
#include "worker/task_pool.h"

namespace trireme::worker {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

TokenOutput token(int32_t id) {
  TokenOutput output;
  output.token_id = id;
  return output;
}

Request request(RequestHandle handle, size_t prompt_tokens) {
  Request made;
  made.handle = handle;
  made.prompt.assign(prompt_tokens, 1);
  return made;
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

TEST(InboxTest, SamplesCountEachAndAreTakenOrRefusedTogether) {
  Inbox inbox({.max_requests = 3, .max_prompt_tokens = 100});
  ASSERT_TRUE(inbox.push({{request(1, 10), request(2, 10)}, nullptr}).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(inbox.push({{request(3, 10), request(4, 10)}, nullptr})));
  EXPECT_EQ(inbox.waiting().requests, 2);
  EXPECT_EQ(inbox.waiting().prompt_tokens, 20);
  EXPECT_TRUE(absl::IsResourceExhausted(inbox.push({{request(3, 81)}, nullptr})));
  EXPECT_TRUE(inbox.push({{request(3, 80)}, nullptr}).ok());
}

TEST(InboxTest, TakeGivesEverythingInOrder) {
  Inbox inbox({});
  ASSERT_TRUE(inbox.push({{request(1, 3)}, nullptr}).ok());
  ASSERT_TRUE(inbox.push({{request(2, 3)}, nullptr}).ok());
  inbox.cancel(1);
  Commands commands;
  inbox.take(commands, Clock::now());
  ASSERT_EQ(commands.submissions.size(), 2u);
  EXPECT_EQ(commands.submissions[0].samples[0].handle, 1u);
  EXPECT_EQ(commands.cancels, std::vector<RequestHandle>{1});
  inbox.take(commands, Clock::now());
  EXPECT_TRUE(commands.empty());
}

TEST(InboxTest, TooManyRequestsAreRefusedUntilTheEngineStartsSome) {
  Inbox inbox({.max_requests = 2, .max_prompt_tokens = 1000});
  ASSERT_TRUE(inbox.push({{request(1, 1)}, nullptr}).ok());
  ASSERT_TRUE(inbox.push({{request(2, 1)}, nullptr}).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(inbox.push({{request(3, 1)}, nullptr})));
  Commands commands;
  inbox.take(commands, Clock::now());
  // Taken, but nobody has said yet that they are not waiting any more.
  EXPECT_TRUE(absl::IsResourceExhausted(inbox.push({{request(3, 1)}, nullptr})));
  inbox.set_engine_waiting({1, 1});
  EXPECT_TRUE(inbox.push({{request(3, 1)}, nullptr}).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(inbox.push({{request(4, 1)}, nullptr})));
  EXPECT_EQ(inbox.waiting().requests, 2);
}

TEST(InboxTest, TooManyPromptTokensAreRefusedButNeverALoneRequest) {
  Inbox inbox({.max_requests = 10, .max_prompt_tokens = 100});
  ASSERT_TRUE(inbox.push({{request(1, 150)}, nullptr}).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(inbox.push({{request(2, 1)}, nullptr})));
  Commands commands;
  inbox.take(commands, Clock::now());
  inbox.set_engine_waiting({});
  EXPECT_TRUE(inbox.push({{request(2, 60)}, nullptr}).ok());
  EXPECT_TRUE(inbox.push({{request(3, 40)}, nullptr}).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(inbox.push({{request(4, 1)}, nullptr})));
}

TEST(InboxTest, ClosedInboxRefusesRequestsAndTakesCancels) {
  Inbox inbox({});
  inbox.close();
  EXPECT_TRUE(absl::IsUnavailable(inbox.push({{request(1, 1)}, nullptr})));
  inbox.cancel(7);
  Commands commands;
  inbox.take(commands, Clock::now());
  EXPECT_EQ(commands.cancels.size(), 1u);
}

TEST(InboxTest, WaitingConsumerWakesForARequestAndForWake) {
  Inbox inbox({});
  const auto take = [&] {
    Commands commands;
    inbox.take(commands, Clock::now() + std::chrono::seconds(20));
    return commands.submissions.size();
  };
  auto first = std::async(std::launch::async, take);
  ASSERT_TRUE(inbox.push({{request(1, 1)}, nullptr}).ok());
  ASSERT_EQ(first.wait_for(std::chrono::seconds(10)), std::future_status::ready);
  EXPECT_EQ(first.get(), 1u);
  auto second = std::async(std::launch::async, take);
  inbox.wake();
  ASSERT_EQ(second.wait_for(std::chrono::seconds(10)), std::future_status::ready);
  EXPECT_EQ(second.get(), 0u);
}

TEST(InboxTest, ManyProducersLoseNothing) {
  Inbox inbox({.max_requests = 1 << 20, .max_prompt_tokens = 1 << 20});
  constexpr int kProducers = 4, kEach = 500;
  std::vector<std::thread> producers;
  for (int p = 0; p < kProducers; ++p) {
    producers.emplace_back([&inbox, p] {
      for (int i = 0; i < kEach; ++i) {
        const auto handle = static_cast<RequestHandle>(p * kEach + i);
        EXPECT_TRUE(inbox.push({{request(handle, 1)}, nullptr}).ok());
        inbox.cancel(handle);
      }
    });
  }
  size_t submissions = 0, cancels = 0;
  const auto deadline = Clock::now() + std::chrono::seconds(20);
  Commands commands;
  while (cancels < kProducers * kEach && Clock::now() < deadline) {
    inbox.take(commands, Clock::now() + milliseconds(50));
    submissions += commands.submissions.size();
    cancels += commands.cancels.size();
    inbox.set_engine_waiting({});
  }
  for (auto& producer : producers) producer.join();
  EXPECT_EQ(submissions, static_cast<size_t>(kProducers * kEach));
  EXPECT_EQ(cancels, static_cast<size_t>(kProducers * kEach));
  EXPECT_EQ(inbox.waiting().requests, 0);
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
