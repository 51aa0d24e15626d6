#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/worker/leader_fixture.h"

namespace trireme::worker {
namespace {

using std::chrono::seconds;
using Clock = std::chrono::steady_clock;

TEST_F(LeaderTest, FullQueueIsRefusedWhileTheEngineIsBusy) {
  FakeEngine::Script script;
  script.max_running = 1;
  start(script, {.queue = {.max_requests = 2, .max_prompt_tokens = 1000}, .idle_interval = seconds(1)});
  engine->hold();
  std::vector<std::shared_ptr<Sink>> sinks;
  const auto submit = [&] {
    sinks.push_back(std::make_shared<Sink>());
    return leader->submit(request(2), sinks.back()).status();
  };
  ASSERT_TRUE(submit().ok());
  ASSERT_TRUE(engine->wait_for([](const auto& counts) { return counts.submitted.size() == 1; }));
  // What runs does not wait. It may take the loop a moment to say so.
  const auto deadline = Clock::now() + seconds(10);
  while (leader->status().waiting.requests > 0 && Clock::now() < deadline) std::this_thread::yield();
  ASSERT_TRUE(submit().ok());
  ASSERT_TRUE(submit().ok());
  EXPECT_TRUE(absl::IsResourceExhausted(submit()));
  sinks.pop_back();
  engine->let_go();
  for (const auto& sink : sinks) ASSERT_TRUE(sink->wait_ended());
}

TEST_F(LeaderTest, OneClientsFullQueueIsItsOwnAndEmptiesAsItsRequestsStart) {
  FakeEngine::Script script;
  script.max_running = 1;
  start(script, {.queue = {.max_requests_per_client = 2}, .idle_interval = seconds(1)});
  engine->hold();
  std::vector<std::shared_ptr<Sink>> sinks;
  const auto submit = [&](const std::string& client) {
    auto sink = std::make_shared<Sink>();
    sink->client = client;
    const absl::Status status = leader->submit(request(2), sink).status();
    if (status.ok()) sinks.push_back(std::move(sink));
    return status;
  };
  const auto await_waiting = [&](int64_t count) {
    const auto deadline = Clock::now() + seconds(10);
    while (leader->status().waiting.requests != count && Clock::now() < deadline) std::this_thread::yield();
    return leader->status().waiting.requests == count;
  };
  ASSERT_TRUE(submit("a").ok());
  ASSERT_TRUE(engine->wait_for([](const auto& counts) { return counts.submitted.size() == 1; }));
  ASSERT_TRUE(await_waiting(0));
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(submit("a").ok());  // one more runs
  EXPECT_TRUE(absl::IsResourceExhausted(submit("a")));
  EXPECT_TRUE(submit("b").ok());
  EXPECT_TRUE(submit("").ok());
  engine->permit(1);  // what waited in the inbox waits in the engine now
  ASSERT_TRUE(engine->wait_for([](const auto& counts) { return counts.submitted.size() == 5; }));
  EXPECT_TRUE(absl::IsResourceExhausted(submit("a")));
  engine->permit(1);  // the first one ends, and one of those that wait is started
  ASSERT_TRUE(await_waiting(3));
  EXPECT_TRUE(submit("a").ok());
  EXPECT_TRUE(absl::IsResourceExhausted(submit("a")));
  engine->let_go();
  for (const auto& sink : sinks) ASSERT_TRUE(sink->wait_ended());
}

}  // namespace
}  // namespace trireme::worker
