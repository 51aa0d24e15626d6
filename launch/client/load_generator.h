#pragma once
// Sends a workload at a server, a number of requests at a time or at a rate, and records what came back.

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <vector>

#include "launch/client/load_record.h"
#include "launch/client/workload.h"

namespace trireme::client {

/// Time as a load sees it, so that tests can run a schedule in no time.
class LoadClock {
 public:
  virtual ~LoadClock() = default;
  virtual LoadTime now() = 0;
  /// Waits until `ready` holds or `time` has come; looks again after each change(). Whether it is ready.
  virtual bool wait_until(LoadTime time, const std::function<bool()>& ready) = 0;
  /// Applies what others wait for. A waiter that sees it may destroy the clock: it is not touched any more.
  virtual void change(const std::function<void()>& apply) = 0;
};

class SteadyLoadClock final : public LoadClock {
 public:
  LoadTime now() override { return LoadTime::clock::now(); }
  bool wait_until(LoadTime time, const std::function<bool()>& ready) override;
  void change(const std::function<void()>& apply) override;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
};

/// Where requests go.
class LoadTarget {
 public:
  virtual ~LoadTarget() = default;
  /// Starts one; fills `record` from its arrivals to its status, then calls `on_done`, both from one thread
  /// at a time. Both outlive the call. Always ends, if only by its deadline.
  virtual void start(const WorkItem& item, CallRecord& record, std::function<void()> on_done) = 0;
  /// Ends what runs with CANCELLED, and from now on what starts.
  virtual void cancel_all() = 0;
};

/// Either a number of requests at a time, the next one sent when one ends (closed loop), or seeded Poisson
/// arrivals that wait for nothing (open loop).
struct LoadPlan {
  int concurrency = 1;
  double rate = 0;  // requests per second; 0: closed loop
  uint64_t seed = 0;
};

/// Time from the begin to each of `count` arrivals. The first is at 0, the gaps after it are exponential;
/// the same on every machine.
std::vector<std::chrono::nanoseconds> poisson_arrivals(double rate, size_t count, uint64_t seed);

/// One load. In an open loop a request that is sent late (this side was held up, or the machine was) still
/// counts its latency from the moment it was scheduled for.
class LoadRun {
 public:
  /// All must outlive it.
  LoadRun(const std::vector<WorkItem>& items, const LoadPlan& plan, LoadTarget& target, LoadClock& clock);

  /// Runs to the end and returns one record per item. Once.
  std::vector<CallRecord> run();
  /// Starts nothing further and cancels what runs. Any thread, any number of times.
  void interrupt();

  // For a progress display, by any thread.
  size_t num_started() const { return started_; }
  size_t num_ended() const { return ended_; }
  size_t num_failed() const { return failed_; }

 private:
  void run_open();
  void start_next();
  void start(size_t index, LoadTime scheduled);
  void finished(size_t index);

  const std::vector<WorkItem>& items_;
  const LoadPlan plan_;
  LoadTarget& target_;
  LoadClock& clock_;
  std::vector<CallRecord> records_;
  std::atomic<bool> interrupted_{false};
  std::atomic<size_t> next_{0}, started_{0}, ended_{0}, failed_{0}, active_{0};
};

}  // namespace trireme::client
