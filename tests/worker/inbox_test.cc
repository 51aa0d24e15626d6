#include "worker/inbox.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace trireme::worker {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

Request request(RequestHandle handle, size_t prompt_tokens) {
  Request made;
  made.handle = handle;
  made.prompt.assign(prompt_tokens, 1);
  return made;
}

struct Sink : RequestSink {
  void deliver() override {}
};

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
  inbox.set_engine_queue({{1, 1}});
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
  inbox.set_engine_queue({});
  EXPECT_TRUE(inbox.push({{request(2, 60)}, nullptr}).ok());
  EXPECT_TRUE(inbox.push({{request(3, 40)}, nullptr}).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(inbox.push({{request(4, 1)}, nullptr})));
}

class InboxOfClientsTest : public testing::Test {
 protected:
  absl::Status push(const std::string& client, size_t num_samples = 1) {
    auto sink = std::make_shared<Sink>();
    sink->client = client;
    return inbox.push({std::vector<Request>(num_samples, request(++handle, 1)), std::move(sink)});
  }
  void expect_full(const std::string& client) {
    const absl::Status status = push(client);
    EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
    EXPECT_NE(status.message().find("queue of client '" + client + "' is full"), std::string::npos) << status;
  }
  void take() { inbox.take(commands, Clock::now()); }

  RequestHandle handle = 0;
  Commands commands;
  Inbox inbox{{.max_requests = 20, .max_requests_per_client = 3}};
};

TEST_F(InboxOfClientsTest, OneClientsQueueIsFullAndTheOthersAreNot) {
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(push("a").ok());
  expect_full("a");
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(push("b").ok());
  expect_full("b");
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(push("").ok()) << "nobody's requests have no bound of their own";
  EXPECT_EQ(inbox.waiting().requests, 11);
}

TEST_F(InboxOfClientsTest, SamplesCountEachButTheFirstRequestIsNeverTooMuch) {
  EXPECT_TRUE(push("a", 8).ok());
  expect_full("a");
  EXPECT_TRUE(push("b", 2).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(push("b", 2)));
  EXPECT_TRUE(push("b", 1).ok());
}

TEST_F(InboxOfClientsTest, RoomComesBackAsTheEngineStartsThem) {
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(push("a").ok());
  take();
  expect_full("a");  // taken, but nobody has said yet that they are not waiting any more
  inbox.set_engine_queue({{2, 2}, 0, {{"a", 2}}});
  EXPECT_TRUE(push("a").ok());
  expect_full("a");
  take();
  inbox.set_engine_queue({});
  EXPECT_EQ(inbox.waiting().requests, 0);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(push("a").ok());
  expect_full("a");
}

TEST_F(InboxOfClientsTest, WhatFreeSlotsAreThereForDoesNotCount) {
  inbox.set_engine_queue({{0, 0}, 4});
  for (int i = 0; i < 4 + 3; ++i) EXPECT_TRUE(push("a").ok());
  const absl::Status status = push("a");
  EXPECT_TRUE(absl::IsResourceExhausted(status));
  EXPECT_THAT(std::string(status.message()),
              ::testing::EndsWith("at most 3 beyond the 4 that the next step has room for"));
  EXPECT_TRUE(push("b").ok());
  take();
  // Two were started, and blocks for more are lacking.
  inbox.set_engine_queue({{6, 6}, 0, {{"a", 5}, {"b", 1}}});
  expect_full("a");
  EXPECT_TRUE(push("b").ok());
}

TEST_F(InboxOfClientsTest, TheBoundOfAllHoldsForEach) {
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(push("client-" + std::to_string(i)).ok());
  const absl::Status status = push("another");
  EXPECT_TRUE(absl::IsResourceExhausted(status));
  EXPECT_NE(status.message().find("queue is full: 20 requests wait"), std::string::npos) << status;
}

TEST_F(InboxOfClientsTest, ZeroIsNoBound) {
  Inbox unbounded({.max_requests_per_client = 0});
  auto sink = std::make_shared<Sink>();
  sink->client = "a";
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(unbounded.push({{request(++handle, 1)}, sink}).ok());
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
    inbox.set_engine_queue({});
  }
  for (auto& producer : producers) producer.join();
  EXPECT_EQ(submissions, static_cast<size_t>(kProducers * kEach));
  EXPECT_EQ(cancels, static_cast<size_t>(kProducers * kEach));
  EXPECT_EQ(inbox.waiting().requests, 0);
}

}  // namespace
}  // namespace trireme::worker
