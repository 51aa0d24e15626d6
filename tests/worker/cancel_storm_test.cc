// Requests by the thousand from many threads, most of them cancelled, through the leader's loop into a real
// scheduler.

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "tests/engine/scheduler/fake_model.h"
#include "worker/leader.h"

namespace trireme::worker {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kThreads = 4, kRequestsPerThread = 500;

SchedulerConfig small_cache() {
  SchedulerConfig config;
  config.max_num_seqs = 8;
  config.max_step_tokens = 32;
  config.max_context_len = 96;
  config.num_blocks = 40;
  config.block_size = 4;
  config.vocab_size = 1000;
  return config;
}

/// Scheduler and fake model, which fails whatever reads another history than its own.
class SchedulerEngine : public StepEngine {
 public:
  explicit SchedulerEngine(const SchedulerConfig& config)
      : scheduler_(config), model_({config.vocab_size, 0}, config) {}

  absl::Status submit(Request request) override { return scheduler_.add(std::move(request)); }
  bool cancel(RequestHandle handle) override {
    const bool found = scheduler_.cancel(handle);
    if (scheduler_.stats().blocks_of_finished != 0) lost_blocks = true;
    return found;
  }
  bool has_work() const override { return scheduler_.has_work(); }
  absl::StatusOr<bool> step(std::vector<TokenOutput>& outputs) override {
    scheduler_.take_finished(outputs);
    if (!scheduler_.schedule(plan_)) return false;
    const auto ids = model_.run(plan_);
    if (!ids.ok()) return ids.status();
    scheduler_.finish_step(plan_, ids->data(), nullptr, outputs);
    return true;
  }
  absl::Status broadcast_idle() override { return absl::OkStatus(); }
  absl::Status broadcast_stop() override { return absl::OkStatus(); }
  SchedulerStats stats() const override { return scheduler_.stats(); }
  void list_waiting(std::vector<RequestHandle>& handles) const override { scheduler_.list_waiting(handles); }
  absl::Status check_integrity() const override { return scheduler_.check_integrity(); }

  bool lost_blocks = false;  // read it when the loop has ended

 private:
  Scheduler scheduler_;
  FakeModel model_;
  StepPlan plan_;
};

/// Counts the samples that ended, and waits for them.
class EndCounter : public RequestSink {
 public:
  void deliver() override {
    std::vector<TokenOutput> outputs;
    const absl::Status error = outbox.drain(outputs);
    std::lock_guard lock(mutex_);
    for (const TokenOutput& output : outputs) ended_ += output.finish != FinishReason::none ? 1 : 0;
    failed_ |= !error.ok();
    changed_.notify_all();
  }
  bool wait_ended(int num_samples) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds(30), [&] { return failed_ || ended_ >= num_samples; });
    return !failed_ && ended_ == num_samples;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int ended_ = 0;
  bool failed_ = false;
};

/// One client: up to 8 requests at once, of one to three samples; three of four are cancelled at some time.
void storm(Leader& leader, uint32_t seed, int& num_wrong) {
  std::mt19937 random(seed);
  const auto draw = [&random](uint32_t count) { return static_cast<int>(random() % count); };
  struct Open {
    std::shared_ptr<EndCounter> sink;
    RequestHandle first;
    int num_samples;
  };
  std::vector<Open> open;
  const auto end_all = [&] {
    for (const Open& request : open) num_wrong += request.sink->wait_ended(request.num_samples) ? 0 : 1;
    open.clear();
  };
  for (int i = 0; i < kRequestsPerThread; ++i) {
    Open request{std::make_shared<EndCounter>(), 0, 1 + draw(3)};
    std::vector<Request> samples(static_cast<size_t>(request.num_samples));
    const auto num_prompt_tokens = static_cast<size_t>(1 + draw(60));
    const int32_t max_tokens = 1 + draw(30);
    for (size_t j = 0; j < samples.size(); ++j) {
      samples[j].prompt.assign(num_prompt_tokens, 1 + i % 3);
      samples[j].stopping.max_tokens = max_tokens;
      samples[j].sampling.sample_index = static_cast<uint32_t>(j);
    }
    const auto first = leader.submit(std::move(samples), request.sink);
    if (!first.ok()) {
      ++num_wrong;
      continue;
    }
    request.first = *first;
    open.push_back(request);
    for (int j = draw(4); j > 0; --j) {
      const Open& victim = open[static_cast<size_t>(draw(static_cast<uint32_t>(open.size())))];
      leader.cancel(victim.first +
                    static_cast<RequestHandle>(draw(static_cast<uint32_t>(victim.num_samples))));
    }
    if (open.size() == 8) end_all();
  }
  end_all();
}

TEST(CancelStorm, LeaderEndsWithEveryBlockFree) {
  const SchedulerConfig config = small_cache();
  SchedulerEngine engine(config);
  Delivery delivery;
  Leader leader(engine, delivery, {});
  absl::Status result;
  std::thread loop([&] { result = leader.run(); });
  std::vector<int> num_wrong(kThreads, 0);
  std::vector<std::thread> clients;
  for (int i = 0; i < kThreads; ++i)
    clients.emplace_back([&leader, &num_wrong, i] { storm(leader, static_cast<uint32_t>(i), num_wrong[i]); });
  for (std::thread& client : clients) client.join();
  leader.stop(Clock::now() + std::chrono::seconds(10));
  loop.join();
  EXPECT_TRUE(result.ok()) << result;
  EXPECT_EQ(num_wrong, std::vector<int>(kThreads, 0));
  EXPECT_FALSE(engine.lost_blocks);
  EXPECT_TRUE(engine.check_integrity().ok()) << engine.check_integrity();
  const SchedulerStats stats = engine.stats();
  EXPECT_EQ(stats.blocks_free, config.num_blocks);
  EXPECT_EQ(stats.blocks_of_finished, 0);
  EXPECT_EQ(stats.running + stats.waiting, 0);
  EXPECT_GE(stats.finished, kThreads * kRequestsPerThread);
}

}  // namespace
}  // namespace trireme::worker
