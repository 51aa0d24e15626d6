#include "launch/client/load_generator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "launch/client/load_target.h"
#include "launch/client/null_server.h"

namespace trireme::client {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;

/// Time that moves only where somebody waits: events happen in their order, at once.
class VirtualClock final : public LoadClock {
 public:
  LoadTime now() override { return now_; }
  bool wait_until(LoadTime time, const std::function<bool()>& ready) override {
    while (!ready()) {
      if (events_.empty() || events_.begin()->first > time) {
        now_ = std::max(now_, time);
        return false;
      }
      auto event = events_.extract(events_.begin());
      now_ = std::max(now_, event.key());
      event.mapped()();
    }
    return true;
  }
  void change(const std::function<void()>& apply) override { apply(); }

  void at(LoadTime time, std::function<void()> event) { events_.emplace(time, std::move(event)); }
  /// Whoever runs now is held up.
  void stall(nanoseconds time) { now_ += time; }

 private:
  LoadTime now_{std::chrono::hours(1)};
  std::multimap<LoadTime, std::function<void()>> events_;
};

/// Serves one request at a time, each for `service_time`; its one token comes at the end.
class FakeServer final : public LoadTarget {
 public:
  FakeServer(VirtualClock& clock, nanoseconds service_time) : clock_(clock), service_time_(service_time) {}

  void start(const WorkItem&, CallRecord& record, std::function<void()> on_done) override {
    most_running_ = std::max(most_running_, ++num_running_);
    if (on_start) on_start(num_started_++);
    free_at_ = std::max(free_at_, clock_.now()) + service_time_;
    clock_.at(free_at_, [this, &record, on_done] {
      --num_running_;
      record.arrivals.push_back({clock_.now(), 1});
      record.num_tokens = 1;
      record.ended = clock_.now();
      if (cancelled_) record.status = grpc::Status(grpc::StatusCode::CANCELLED, "");
      on_done();
    });
  }
  void cancel_all() override { cancelled_ = true; }

  int most_running() const { return most_running_; }
  std::function<void(int)> on_start;

 private:
  VirtualClock& clock_;
  const nanoseconds service_time_;
  LoadTime free_at_{};
  int num_running_ = 0, most_running_ = 0, num_started_ = 0;
  bool cancelled_ = false;
};

LoadPlan open_loop(double rate, uint64_t seed = 1) {
  LoadPlan plan;
  plan.rate = rate;
  plan.seed = seed;
  return plan;
}

TEST(PoissonArrivalsTest, SameSeedSameArrivals) {
  const auto arrivals = poisson_arrivals(10, 1000, 7);
  EXPECT_EQ(arrivals, poisson_arrivals(10, 1000, 7));
  EXPECT_NE(arrivals, poisson_arrivals(10, 1000, 8));
  EXPECT_TRUE(std::is_sorted(arrivals.begin(), arrivals.end()));
  EXPECT_EQ(arrivals[0].count(), 0);
  // The same on every machine and with every standard library.
  EXPECT_EQ(arrivals[1].count() / 1000, poisson_arrivals(1, 2, 7)[1].count() / 10'000);
}

TEST(PoissonArrivalsTest, GapsAreExponentialWithTheRateAsked) {
  const size_t count = 200'000;
  const auto arrivals = poisson_arrivals(50, count, 3);
  double sum = 0, squares = 0;
  size_t longer_than_mean = 0;
  for (size_t i = 1; i < count; ++i) {
    const double gap = std::chrono::duration<double>(arrivals[i] - arrivals[i - 1]).count();
    sum += gap;
    squares += gap * gap;
    longer_than_mean += gap > 0.02 ? 1 : 0;
  }
  const double mean = sum / count;
  EXPECT_NEAR(mean, 0.02, 0.0002);
  EXPECT_NEAR(squares / count - mean * mean, 0.02 * 0.02, 0.00001);
  EXPECT_NEAR(static_cast<double>(longer_than_mean) / count, 0.3679, 0.005);  // 1/e
}

TEST(LoadRunTest, AClosedLoopKeepsItsNumberRunning) {
  VirtualClock clock;
  FakeServer server(clock, milliseconds(10));
  const std::vector<WorkItem> items(50);
  LoadPlan plan;
  plan.concurrency = 4;
  LoadRun run(items, plan, server, clock);
  const LoadReport report = summarize(run.run(), {});
  EXPECT_EQ(report.ok, 50);
  EXPECT_EQ(server.most_running(), 4);
  EXPECT_NEAR(report.duration_s, 0.5, 1e-9);
  EXPECT_NEAR(report.e2e_ms.p50, 40, 1e-6);  // three before it, and itself
  EXPECT_EQ(run.num_ended(), 50u);
}

TEST(LoadRunTest, AnOpenLoopWaitsForNobody) {
  VirtualClock clock;
  FakeServer server(clock, milliseconds(100));  // ten per second
  const std::vector<WorkItem> items(200);
  LoadRun run(items, open_loop(100), server, clock);
  const std::vector<CallRecord> records = run.run();
  const auto arrivals = poisson_arrivals(100, 200, 1);
  for (size_t i = 0; i < 200; ++i) {
    EXPECT_EQ(records[i].scheduled - records[0].scheduled, arrivals[i]);
    EXPECT_EQ(records[i].sent, records[i].scheduled);
  }
  const LoadReport report = summarize(records, {});
  EXPECT_GT(server.most_running(), 100);
  // The last one waited for all before it.
  EXPECT_NEAR(report.e2e_ms.max, 200 * 100 - std::chrono::duration<double>(arrivals[199]).count() * 1e3,
              1e-3);
}

TEST(LoadRunTest, WhatAStallDelaysCountsFromItsSchedule) {
  VirtualClock clock;
  FakeServer server(clock, milliseconds(1));
  server.on_start = [&clock](int index) {
    if (index == 10) clock.stall(seconds(1));  // a call that does not return, a machine that stands still
  };
  const std::vector<WorkItem> items(100);
  const std::vector<CallRecord> records = LoadRun(items, open_loop(100), server, clock).run();
  const auto arrivals = poisson_arrivals(100, 100, 1);
  const LoadTime begin = records[0].scheduled;
  const LoadTime stall_end = begin + arrivals[10] + seconds(1);
  int delayed = 0;
  for (size_t i = 11; i < 100; ++i) {
    EXPECT_EQ(records[i].scheduled - begin, arrivals[i]) << "the schedule moved";
    if (records[i].scheduled >= stall_end) continue;
    ++delayed;
    EXPECT_EQ(records[i].sent, stall_end);
    EXPECT_GE(records[i].ended - records[i].scheduled, stall_end - records[i].scheduled);
  }
  EXPECT_GT(delayed, 50);
  const LoadReport report = summarize(records, {});
  EXPECT_GT(report.ttft_ms.p50, 100) << "half the requests were due during the stall";
  EXPECT_GT(report.send_delay_ms.max, 900);
}

TEST(LoadRunTest, AnInterruptStartsNothingMoreAndCancelsWhatRuns) {
  for (const bool open : {false, true}) {
    VirtualClock clock;
    FakeServer server(clock, milliseconds(100));
    const std::vector<WorkItem> items(100);
    LoadPlan plan = open ? open_loop(20) : LoadPlan{};
    plan.concurrency = 3;
    LoadRun run(items, plan, server, clock);
    clock.at(clock.now() + milliseconds(1050), [&run] { run.interrupt(); });
    const LoadReport report = summarize(run.run(), {});
    EXPECT_EQ(report.ok, 10);
    EXPECT_GT(report.interrupted, 0);
    EXPECT_GT(report.not_started, 0);
    EXPECT_EQ(report.ok + report.interrupted + report.not_started, 100);
    EXPECT_EQ(report.errors, 0);
  }
}

/// The real calls, against a server that answers at once.
class GrpcLoadTargetTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto server = NullServer::start();
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  static std::vector<WorkItem> items(size_t count, int32_t tokens) {
    WorkItem item;
    item.prompt_ids = {1, 2, 3};
    item.output_tokens = tokens;
    return std::vector<WorkItem>(count, item);
  }
  std::unique_ptr<NullServer> server_;
  SteadyLoadClock clock_;
};

TEST_F(GrpcLoadTargetTest, EveryTokenOfEveryRequestIsSeen) {
  CallOptions options;
  options.num_connections = 2;
  GrpcLoadTarget target(server_->address(), options);
  v1::GetModelResponse model;
  ASSERT_TRUE(target.connect(model).ok());
  EXPECT_EQ(model.name(), "null");
  LoadPlan plan;
  plan.concurrency = 8;
  const auto work = items(100, 20);
  const LoadReport report = summarize(LoadRun(work, plan, target, clock_).run(), {});
  EXPECT_EQ(report.ok, 100);
  EXPECT_EQ(report.output_tokens, 2000);
  EXPECT_EQ(report.messages, 2000);
  EXPECT_EQ(report.wrong_lengths, 0);
  EXPECT_EQ(report.itl_ms.count, 1900u);
}

TEST_F(GrpcLoadTargetTest, AnInterruptEndsStreamsInTheMiddle) {
  GrpcLoadTarget target(server_->address(), {});
  LoadPlan plan;
  plan.concurrency = 4;
  const auto work = items(8, 1 << 30);
  LoadRun run(work, plan, target, clock_);
  std::thread interrupter([&] {
    clock_.wait_until(clock_.now() + seconds(20), [&run] { return run.num_started() == 4; });
    run.interrupt();
  });
  const LoadReport report = summarize(run.run(), {});
  interrupter.join();
  EXPECT_EQ(report.interrupted, 4);
  EXPECT_EQ(report.not_started, 4);
}

TEST(GrpcLoadTargetErrorTest, NobodyThereIsAnErrorByItsCode) {
  CallOptions options;
  options.timeout_s = 5;
  GrpcLoadTarget target("127.0.0.1:1", options);
  SteadyLoadClock clock;
  WorkItem item;
  item.prompt_ids = {1};
  item.output_tokens = 1;
  const std::vector<WorkItem> items(3, item);
  const LoadReport report = summarize(LoadRun(items, {}, target, clock).run(), {});
  EXPECT_EQ(report.errors_by_code, (std::map<std::string, int64_t>{{"UNAVAILABLE", 3}}));
}

}  // namespace
}  // namespace trireme::client
