// A request's life under events from several threads at once.

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <random>
#include <thread>

#include <gtest/gtest.h>

#include "coordinator/request_life.h"

namespace trireme {
namespace {

using std::chrono::milliseconds;

const RequestLife::Time kStart{};

/// Attempts that end by themselves on a thread, while others bring every event there is.
class RacedActions : public LifeActions {
 public:
  explicit RacedActions(uint32_t seed) : random_(seed) {
    LifeLimits limits;
    limits.resume_timeout = milliseconds(1000);
    limits.refusal_pause = milliseconds(100);
    limits.max_resumes = 3;
    life.emplace(*this, limits);
  }

  bool find_replica() override {
    EXPECT_FALSE(running_);
    std::lock_guard lock(mutex_);
    return random_() % 3 != 0;
  }
  void start_attempt() override {
    EXPECT_FALSE(running_.exchange(true));
    EXPECT_EQ(num_finished, 0);
    std::lock_guard lock(mutex_);
    attempts_.push_back(random_() % 4);
    changed_.notify_all();
  }
  void end_attempt(RelayEnd) override {}
  void forgive_refusals() override { EXPECT_FALSE(running_); }
  void finish(RelayEnd) override {
    EXPECT_FALSE(running_);
    ++num_finished;
    std::lock_guard lock(mutex_);
    over_ = true;
    changed_.notify_all();
  }

  /// Ends one attempt after the other until the request is over.
  void run_attempts() {
    while (true) {
      uint32_t how;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return over_ || !attempts_.empty(); });
        if (attempts_.empty()) return;
        how = attempts_.front();
        attempts_.pop_front();
      }
      running_ = false;
      const AttemptEnd end = how == 0 ? AttemptEnd::done : how == 1 ? AttemptEnd::refused : AttemptEnd::lost;
      life->attempt_ended(end, RelayEnd::upstream, kStart);
    }
  }

  std::optional<RequestLife> life;
  std::atomic<int> num_finished{0};

 private:
  std::atomic<bool> running_{false};
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<uint32_t> attempts_;
  std::mt19937 random_;
  bool over_ = false;
};

TEST(RequestLifeTest, EndsOnceHoweverEventsRace) {
  for (uint32_t seed = 0; seed < 300; ++seed) {
    RacedActions actions(seed);
    std::thread attempts([&] { actions.run_attempts(); });
    std::thread events([&] {
      std::mt19937 random(seed + 1000);
      for (int i = 0; i < 20; ++i) {
        const uint32_t event = random() % 30;
        if (event == 0) actions.life->end(RelayEnd::client_gone);
        if (event == 1) actions.life->cancel();
        if (event > 1 && event < 20) actions.life->replica_available();
        if (event >= 20) actions.life->tick(kStart + milliseconds(random() % 900));
      }
    });
    actions.life->start();
    events.join();
    actions.life->stop_waiting();
    actions.life->replica_available();
    actions.life->tick(kStart + milliseconds(2000));
    attempts.join();
    EXPECT_EQ(actions.num_finished, 1) << "seed " << seed;
  }
}

}  // namespace
}  // namespace trireme
