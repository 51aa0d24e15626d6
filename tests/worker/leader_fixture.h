#pragma once
// A leader's loop around a scripted engine, without any RPC.

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "tests/worker/fake_engine.h"
#include "worker/leader.h"

namespace trireme::worker {

class Sink : public RequestSink {
 public:
  using RequestSink::RequestSink;
  void deliver() override {
    std::lock_guard lock(mutex_);
    error_ = outbox.drain(outputs_);
    if (!error_.ok() || (!outputs_.empty() && outputs_.back().finish != FinishReason::none)) ended_ = true;
    changed_.notify_all();
  }
  bool wait_ended() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(10), [&] { return ended_; });
  }
  bool wait_tokens(size_t count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(10), [&] { return outputs_.size() >= count; });
  }
  std::vector<TokenOutput> outputs() {
    std::lock_guard lock(mutex_);
    return outputs_;
  }
  absl::Status error() {
    std::lock_guard lock(mutex_);
    return error_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<TokenOutput> outputs_;
  absl::Status error_;
  bool ended_ = false;
};

inline Request request(int32_t max_tokens, size_t prompt_tokens = 4) {
  Request made;
  made.prompt.assign(prompt_tokens, 1);
  made.stopping.max_tokens = max_tokens;
  return made;
}

class LeaderTest : public testing::Test {
 protected:
  void start(FakeEngine::Script script = {}, LeaderOptions options = {}) {
    engine = std::make_unique<FakeEngine>(std::move(script));
    leader = std::make_unique<Leader>(*engine, delivery, options);
    thread = std::thread([this] { result = leader->run(); });
  }
  absl::Status stop(std::chrono::steady_clock::duration grace = std::chrono::seconds(10)) {
    if (thread.joinable()) {
      leader->stop(std::chrono::steady_clock::now() + grace);
      thread.join();
    }
    return result;
  }
  ~LeaderTest() override {
    if (!thread.joinable()) return;
    engine->let_go();
    leader->stop(std::chrono::steady_clock::now());
    thread.join();
  }

  Delivery delivery;
  std::unique_ptr<FakeEngine> engine;
  std::unique_ptr<Leader> leader;
  std::thread thread;
  absl::Status result = absl::UnknownError("still running");
};

}  // namespace trireme::worker
