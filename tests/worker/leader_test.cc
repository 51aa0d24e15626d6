#include "worker/leader.h"

#include <chrono>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "tests/worker/leader_fixture.h"

namespace trireme::worker {
namespace {

using std::chrono::seconds;
using Clock = std::chrono::steady_clock;

/// Never looks into its outbox.
class DeafSink : public RequestSink {
 public:
  using RequestSink::RequestSink;
  void deliver() override {}
};

TEST_F(LeaderTest, TokensReachTheirRequestInOrder) {
  start();
  auto first = std::make_shared<Sink>();
  auto second = std::make_shared<Sink>();
  ASSERT_TRUE(leader->submit(request(5), first).ok());
  ASSERT_TRUE(leader->submit(request(3), second).ok());
  ASSERT_TRUE(first->wait_ended());
  ASSERT_TRUE(second->wait_ended());
  ASSERT_EQ(first->outputs().size(), 5u);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(first->outputs()[static_cast<size_t>(i)].token_id, i);
  EXPECT_EQ(first->outputs().back().finish, FinishReason::length);
  EXPECT_EQ(second->outputs().size(), 3u);
  EXPECT_TRUE(stop().ok());
  EXPECT_EQ(engine->counts().stops, 1);
}

TEST_F(LeaderTest, IdleLeaderShowsThatItLives) {
  start({}, {.queue = {}, .idle_interval = std::chrono::milliseconds(5)});
  EXPECT_TRUE(engine->wait_for([](const auto& counts) { return counts.idles >= 3; }));
  EXPECT_GE(leader->beats(), 2u);
  EXPECT_EQ(engine->counts().steps, 0);
}

TEST_F(LeaderTest, CancelEndsTheRequestBeforeTheNextStep) {
  start();
  engine->hold();
  auto sink = std::make_shared<Sink>();
  const auto handle = leader->submit(request(100), sink);
  ASSERT_TRUE(handle.ok());
  engine->permit(2);
  ASSERT_TRUE(sink->wait_tokens(2));
  leader->cancel(*handle);
  engine->permit(1);  // the step that was waiting already
  ASSERT_TRUE(sink->wait_ended());
  const auto outputs = sink->outputs();
  EXPECT_LE(outputs.size(), 4u);
  EXPECT_EQ(outputs.back().finish, FinishReason::cancelled);
  EXPECT_FALSE(outputs.back().has_token);
  EXPECT_EQ(engine->counts().cancelled, std::vector<RequestHandle>{*handle});
  EXPECT_FALSE(engine->has_work());
}

TEST_F(LeaderTest, CancelOfUnknownOrFinishedRequestChangesNothing) {
  start();
  auto sink = std::make_shared<Sink>();
  const auto handle = leader->submit(request(1), sink);
  ASSERT_TRUE(handle.ok());
  ASSERT_TRUE(sink->wait_ended());
  leader->cancel(*handle);
  leader->cancel(12345);
  auto other = std::make_shared<Sink>();
  ASSERT_TRUE(leader->submit(request(1), other).ok());
  ASSERT_TRUE(other->wait_ended());
  EXPECT_TRUE(engine->counts().cancelled.empty());
  EXPECT_EQ(sink->outputs().size(), 1u);
}

TEST_F(LeaderTest, OverflowEndsThatRequestAlone) {
  start();
  engine->hold();
  auto deaf = std::make_shared<DeafSink>(10 * sizeof(TokenOutput));
  auto sink = std::make_shared<Sink>();
  const auto handle = leader->submit(request(1000), deaf);
  ASSERT_TRUE(handle.ok());
  ASSERT_TRUE(leader->submit(request(50), sink).ok());
  engine->let_go();
  ASSERT_TRUE(sink->wait_ended());
  EXPECT_EQ(sink->outputs().size(), 50u);
  EXPECT_EQ(engine->counts().cancelled, std::vector<RequestHandle>{*handle});
  std::vector<TokenOutput> outputs;
  EXPECT_TRUE(absl::IsCancelled(deaf->outbox.drain(outputs)));
  EXPECT_EQ(outputs.size(), 10u);
}

TEST_F(LeaderTest, RequestTheEngineRefusesFailsAlone) {
  FakeEngine::Script script;
  script.accept = [](const Request& asked) {
    return asked.prompt.size() > 10 ? absl::ResourceExhaustedError("too long for the cache")
                                    : absl::OkStatus();
  };
  start(script);
  auto refused = std::make_shared<Sink>();
  auto sink = std::make_shared<Sink>();
  ASSERT_TRUE(leader->submit(request(3, 11), refused).ok());
  ASSERT_TRUE(leader->submit(request(3), sink).ok());
  ASSERT_TRUE(refused->wait_ended());
  ASSERT_TRUE(sink->wait_ended());
  EXPECT_EQ(refused->error(), absl::ResourceExhaustedError("too long for the cache"));
  EXPECT_EQ(sink->outputs().size(), 3u);
}

TEST_F(LeaderTest, SamplesTheEngineRefusesLeaveNoneOfTheirRequest) {
  FakeEngine::Script script;
  script.accept = [](const Request& asked) {
    return asked.sampling.sample_index == 2 ? absl::ResourceExhaustedError("too large") : absl::OkStatus();
  };
  start(script);
  auto sink = std::make_shared<Sink>();
  std::vector<Request> samples(4, request(1000000));
  for (uint32_t i = 0; i < 4; ++i) samples[i].sampling.sample_index = i;
  const auto first = leader->submit(samples, sink);
  ASSERT_TRUE(first.ok());
  ASSERT_TRUE(sink->wait_ended());
  EXPECT_TRUE(absl::IsResourceExhausted(sink->error()));
  EXPECT_TRUE(sink->outputs().empty());
  EXPECT_EQ(engine->counts().cancelled, (std::vector<RequestHandle>{*first, *first + 1}));
  EXPECT_FALSE(engine->has_work());
}

TEST_F(LeaderTest, DrainFinishesWhatRunsAndTakesNothingNew) {
  start();
  engine->hold();
  auto sink = std::make_shared<Sink>();
  ASSERT_TRUE(leader->submit(request(10), sink).ok());
  engine->permit(1);
  ASSERT_TRUE(sink->wait_tokens(1));
  leader->drain();
  EXPECT_TRUE(absl::IsUnavailable(leader->submit(request(1), std::make_shared<Sink>()).status()));
  EXPECT_FALSE(leader->status().drained);
  engine->let_go();
  ASSERT_TRUE(sink->wait_ended());
  EXPECT_TRUE(stop().ok());
  EXPECT_EQ(sink->outputs().size(), 10u);
  EXPECT_TRUE(leader->status().drained);
}

TEST_F(LeaderTest, StopPastItsDeadlineFailsWhatStillRuns) {
  start();
  engine->hold();
  auto sink = std::make_shared<Sink>();
  ASSERT_TRUE(leader->submit(request(1000000), sink).ok());
  engine->permit(1);
  ASSERT_TRUE(sink->wait_tokens(1));
  leader->stop(Clock::now());
  engine->let_go();
  EXPECT_TRUE(stop().ok());
  ASSERT_TRUE(sink->wait_ended());
  EXPECT_TRUE(absl::IsUnavailable(sink->error()));
  EXPECT_EQ(engine->counts().stops, 1);
}

TEST_F(LeaderTest, BrokenEngineFailsEveryRequestAndEndsTheLoop) {
  start();
  engine->hold();
  auto sink = std::make_shared<Sink>();
  ASSERT_TRUE(leader->submit(request(10), sink).ok());
  engine->break_next_step();
  engine->let_go();
  ASSERT_TRUE(sink->wait_ended());
  thread.join();
  EXPECT_TRUE(absl::IsInternal(result));
  EXPECT_TRUE(absl::IsUnavailable(sink->error()));
  EXPECT_TRUE(absl::IsUnavailable(leader->submit(request(1), std::make_shared<Sink>()).status()));
}

TEST_F(LeaderTest, EngineThatHasLostABlockIsBrokenWhenItBecomesIdle) {
  start();
  auto sink = std::make_shared<Sink>();
  ASSERT_TRUE(leader->submit(request(3), sink).ok());
  ASSERT_TRUE(sink->wait_ended());
  engine->hold();
  auto last = std::make_shared<Sink>();
  ASSERT_TRUE(leader->submit(request(3), last).ok());
  // While it runs: the engine is not idle before its end.
  ASSERT_TRUE(engine->wait_for([](const auto& counts) { return counts.submitted.size() == 2; }));
  engine->set_integrity(absl::InternalError("block 3 is lost"));
  engine->let_go();
  ASSERT_TRUE(last->wait_ended());
  EXPECT_EQ(last->outputs().size(), 3u);
  thread.join();
  EXPECT_EQ(result, absl::InternalError("block 3 is lost"));
}

TEST_F(LeaderTest, RandomCancelsFromManyThreadsLeaveNothingBehind) {
  FakeEngine::Script script;
  script.max_running = 4;
  start(script,
        {.queue = {.max_requests = 1 << 20, .max_prompt_tokens = 1 << 30}, .idle_interval = seconds(1)});
  constexpr int kThreads = 4, kEach = 200;
  std::vector<std::shared_ptr<Sink>> sinks(kThreads * kEach);
  std::vector<std::thread> clients;
  for (int t = 0; t < kThreads; ++t) {
    clients.emplace_back([&, t] {
      std::mt19937 random(static_cast<unsigned>(t));
      std::vector<RequestHandle> handles;
      for (int i = 0; i < kEach; ++i) {
        auto& sink = sinks[static_cast<size_t>(t * kEach + i)];
        sink = std::make_shared<Sink>();
        const auto handle = leader->submit(request(1 + static_cast<int32_t>(random() % 5)), sink);
        ASSERT_TRUE(handle.ok());
        handles.push_back(*handle);
        if (random() % 2 == 0) leader->cancel(handles[random() % handles.size()]);
      }
    });
  }
  for (auto& client : clients) client.join();
  for (const auto& sink : sinks) {
    ASSERT_TRUE(sink->wait_ended());
    int ends = 0;
    for (const auto& output : sink->outputs()) ends += output.finish == FinishReason::none ? 0 : 1;
    EXPECT_EQ(ends, 1);
  }
  EXPECT_TRUE(stop().ok());
  const LeaderStatus status = leader->status();
  EXPECT_TRUE(status.drained);
  EXPECT_EQ(status.active, 0);
  EXPECT_EQ(status.waiting.prompt_tokens, 0);
}

}  // namespace
}  // namespace trireme::worker
