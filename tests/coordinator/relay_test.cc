#include "coordinator/relay.h"

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace trireme {
namespace {

using ::testing::ElementsAre;

/// Writes down what the relay asks for; the test brings the events.
class RecordedStreams : public RelayStreams {
 public:
  void read() override { calls.push_back("read"); }
  void write() override { calls.push_back("write"); }
  void cancel() override { calls.push_back("cancel"); }
  void release() override { calls.push_back("release"); }
  void finish(RelayEnd end) override { calls.push_back("finish " + std::to_string(static_cast<int>(end))); }

  std::vector<std::string> calls;
};

std::string finish(RelayEnd end) { return "finish " + std::to_string(static_cast<int>(end)); }

struct Fixture {
  RecordedStreams streams;
  Relay relay{streams};
};

TEST(RelayTest, ReadsAgainOnlyWhenTheLastMessageIsWritten) {
  Fixture f;
  f.relay.start();
  EXPECT_THAT(f.streams.calls, ElementsAre("read"));
  f.relay.on_read(true);
  EXPECT_THAT(f.streams.calls, ElementsAre("read", "write"));
  f.relay.on_written(true);
  EXPECT_THAT(f.streams.calls, ElementsAre("read", "write", "read"));
}

TEST(RelayTest, EndOfTheReplicasStreamEndsTheClients) {
  Fixture f;
  f.relay.start();
  f.relay.on_read(false);
  f.relay.on_upstream_done();
  EXPECT_THAT(f.streams.calls, ElementsAre("read", "release", finish(RelayEnd::upstream)));
}

TEST(RelayTest, MessageAfterTheClientLeftIsDropped) {
  Fixture f;
  f.relay.start();
  f.relay.end(RelayEnd::client_gone);
  f.relay.on_read(true);  // it was on its way
  f.relay.on_upstream_done();
  EXPECT_THAT(f.streams.calls, ElementsAre("read", "cancel", "release", finish(RelayEnd::client_gone)));
}

TEST(RelayTest, EndDuringAWriteWaitsForIt) {
  Fixture f;
  f.relay.start();
  f.relay.on_read(true);
  f.relay.end(RelayEnd::replica_lost);
  EXPECT_THAT(f.streams.calls, ElementsAre("read", "write", "cancel"));
  f.relay.on_written(true);
  f.relay.on_upstream_done();
  EXPECT_THAT(f.streams.calls,
              ElementsAre("read", "write", "cancel", "release", finish(RelayEnd::replica_lost)));
}

TEST(RelayTest, FailedWriteMeansTheClientIsGone) {
  Fixture f;
  f.relay.start();
  f.relay.on_read(true);
  f.relay.on_written(false);
  f.relay.on_upstream_done();
  EXPECT_THAT(f.streams.calls,
              ElementsAre("read", "write", "cancel", "release", finish(RelayEnd::client_gone)));
}

TEST(RelayTest, FirstCauseCountsAndCancelsOnce) {
  Fixture f;
  f.relay.start();
  f.relay.end(RelayEnd::replica_lost);
  f.relay.end(RelayEnd::client_gone);
  f.relay.on_read(false);
  f.relay.on_upstream_done();
  f.relay.end(RelayEnd::aborted);
  EXPECT_THAT(f.streams.calls, ElementsAre("read", "cancel", "release", finish(RelayEnd::replica_lost)));
  EXPECT_EQ(f.relay.cause(), RelayEnd::replica_lost);
}

TEST(RelayTest, NothingIsCancelledAfterTheEnd) {
  Fixture f;
  f.relay.start();
  f.relay.on_read(false);
  f.relay.on_upstream_done();
  f.relay.end(RelayEnd::client_gone);
  EXPECT_THAT(f.streams.calls, ElementsAre("read", "release", finish(RelayEnd::upstream)));
}

/// Runs what it is given, in order, on its own thread: one side of a connection.
class Side {
 public:
  Side() : thread_([this] { run(); }) {}
  ~Side() {
    post(nullptr);
    thread_.join();
  }
  void post(std::function<void()> task) {
    std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
    ready_.notify_one();
  }

 private:
  void run() {
    while (true) {
      std::function<void()> task;
      {
        std::unique_lock lock(mutex_);
        ready_.wait(lock, [this] { return !tasks_.empty(); });
        task = std::move(tasks_.front());
        tasks_.pop_front();
      }
      if (!task) return;
      task();
    }
  }

  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<std::function<void()>> tasks_;
  std::thread thread_;
};

/// A replica that sends `num_messages` and a client that takes `num_accepted`, on two threads.
class ThreadedStreams : public RelayStreams {
 public:
  ThreadedStreams(int num_messages, int num_accepted)
      : num_messages_(num_messages), num_accepted_(num_accepted) {}

  void read() override {
    EXPECT_EQ(open_.exchange(true), false);
    EXPECT_FALSE(released_);
    replica_.post([this] {
      const bool ok = !cancelled_ && message_ < num_messages_;
      if (ok) ++message_;  // the one buffer: a race here would be a flow-control fault
      open_ = false;
      relay.on_read(ok);
    });
  }
  void write() override {
    EXPECT_EQ(open_.exchange(true), false);
    client_.post([this] {
      const bool ok = static_cast<int>(received_.size()) < num_accepted_;
      if (ok) received_.push_back(message_);
      open_ = false;
      relay.on_written(ok);
    });
  }
  void cancel() override { cancelled_ = true; }
  void release() override {
    EXPECT_FALSE(released_.exchange(true));
    replica_.post([this] { relay.on_upstream_done(); });
  }
  void finish(RelayEnd end) override { end_.set_value(end); }

  RelayEnd run(std::chrono::microseconds lost_after, bool lose) {
    relay.start();
    std::thread chaos;
    if (lose)
      chaos = std::thread([this, lost_after] {
        std::this_thread::sleep_for(lost_after);  // any moment will do
        relay.end(RelayEnd::replica_lost);
      });
    std::future<RelayEnd> ended = end_.get_future();
    EXPECT_EQ(ended.wait_for(std::chrono::seconds(60)), std::future_status::ready);
    if (chaos.joinable()) chaos.join();
    return ended.get();
  }
  const std::vector<int>& received() const { return received_; }

  Relay relay{*this};

 private:
  const int num_messages_, num_accepted_;
  int message_ = 0;
  std::vector<int> received_;
  std::atomic<bool> open_{false}, released_{false}, cancelled_{false};
  std::promise<RelayEnd> end_;
  Side replica_, client_;
};

void expect_in_order(const std::vector<int>& received) {
  for (size_t i = 0; i < received.size(); ++i) EXPECT_EQ(received[i], static_cast<int>(i) + 1);
}

TEST(RelayTest, PassesEverythingInOrderBetweenThreads) {
  ThreadedStreams streams(500, 1000);
  EXPECT_EQ(streams.run({}, false), RelayEnd::upstream);
  EXPECT_EQ(streams.received().size(), 500u);
  expect_in_order(streams.received());
}

TEST(RelayTest, EndsOnceHoweverTheSidesRace) {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    ThreadedStreams streams(static_cast<int>(random() % 40), static_cast<int>(random() % 40));
    const RelayEnd end = streams.run(std::chrono::microseconds(random() % 300), true);
    EXPECT_TRUE(end == RelayEnd::upstream || end == RelayEnd::client_gone || end == RelayEnd::replica_lost);
    expect_in_order(streams.received());
  }
}

}  // namespace
}  // namespace trireme
