#pragma once
// The step loop of a replica's leader.

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/delivery.h"
#include "worker/inbox.h"
#include "worker/outbox.h"
#include "worker/serving_metrics.h"
#include "worker/step_clock.h"
#include "worker/step_engine.h"

namespace trireme::worker {

struct LeaderOptions {
  QueueLimits queue;
  std::chrono::milliseconds idle_interval{1000};  // between signs of life to idle followers
  /// Between reports of the ranks, a tenth of it when the work has run out; 0: none.
  std::chrono::milliseconds telemetry_interval{0};
};

/// What the loop looked like when it last looked up.
struct LeaderStatus {
  SchedulerStats engine;
  Waiting waiting;     // inbox and engine together
  int64_t active = 0;  // samples that were taken and have not ended
  bool draining = false;
  bool drained = false;              // draining, and nothing is left
  std::vector<RankTelemetry> ranks;  // as of telemetry_interval ago at most; empty where there is none
  int64_t ranks_steps = 0;           // engine.steps of that moment
  int64_t delivery_ns = 0;           // spent in Delivery, beside the steps
};

/// Moves requests from the inbox into the engine, steps while there is work, and puts the tokens into each
/// request's outbox. Whenever the engine runs out of work, its integrity is checked: an engine that has lost
/// a block is broken. One thread runs it, and that thread alone touches the engine (and, through it, MPI); it
/// never calls gRPC and never waits for a reader. Everything but run() may be called from any thread.
class Leader {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  /// All must outlive it. Construct it on the thread that will call run().
  Leader(StepEngine& engine, Delivery& delivery, LeaderOptions options);

  /// Queues the samples of one prompt, all or none; handles are chosen here, one after the other from the one
  /// that is returned. The outputs of all reach `sink`, for each sample until one with a finish reason, or
  /// until the outbox fails. RESOURCE_EXHAUSTED when too much waits, or too much of sink->client,
  /// UNAVAILABLE when draining.
  absl::StatusOr<RequestHandle> submit(std::vector<Request> samples, std::shared_ptr<RequestSink> sink);
  absl::StatusOr<RequestHandle> submit(Request request, std::shared_ptr<RequestSink> sink) {
    return submit(std::vector<Request>{std::move(request)}, std::move(sink));
  }
  /// Ends a request before the next step; the sink gets an output with FinishReason::cancelled. Handles that
  /// are unknown or over change nothing.
  void cancel(RequestHandle handle);

  /// Takes no new requests from now on.
  void drain();
  /// Drains; run() returns when nothing is left, or at `deadline`: what still runs then fails with
  /// UNAVAILABLE. An earlier deadline replaces a later one.
  void stop(TimePoint deadline);
  /// The same for a leader that is cut off, its followers and the launcher perhaps, too: without a stop plan.
  /// The process is to end at once when run() has returned; followers miss its signs of life.
  void abandon(TimePoint deadline);
  bool abandoned() const { return abandoned_.load(); }

  /// Serves until stop() or abandon(). The stop plan has been broadcast when it returns OK, unless
  /// abandoned(). An error means that the engine is broken: all requests have failed with UNAVAILABLE, and
  /// the process must end.
  absl::Status run();

  LeaderStatus status() const;
  ServingMetrics& metrics() { return metrics_; }
  bool draining() const { return inbox_.closed(); }
  /// Moves with every finished step and every idle heartbeat.
  uint64_t beats() const { return beats_.load(std::memory_order_relaxed); }

 private:
  struct Active {
    std::shared_ptr<RequestSink> sink;  // of all samples of the request
    uint32_t sample_index = 0;
  };
  using Actives = std::unordered_map<RequestHandle, Active>;

  absl::Status serve();
  absl::StatusOr<bool> step();
  absl::Status gather_telemetry(TimePoint now, bool work_ran_out);
  void take_commands(TimePoint deadline);
  void apply_submission(Submission& submission);
  void end_cancelled(RequestHandle handle);
  void hand_out();
  void dispatch();
  void push(Actives::iterator active, const TokenOutput& output);
  void fail(const std::shared_ptr<RequestSink>& sink, absl::Status error);
  void fail_all(const absl::Status& error);
  void publish();
  WaitingByClient waiting_by_client();
  bool is_over();

  StepEngine& engine_;
  Delivery& delivery_;
  const LeaderOptions options_;
  Inbox inbox_;
  std::atomic<RequestHandle> next_handle_{1};
  std::atomic<uint64_t> beats_{0};
  std::atomic<bool> abandoned_{false};

  ServingMetrics metrics_;

  // The loop's own.
  StepClock clock_{metrics_};
  TimePoint last_telemetry_{};
  Actives actives_;
  Commands commands_;
  std::vector<TokenOutput> outputs_;
  std::vector<std::shared_ptr<RequestSink>> to_wake_;
  std::vector<RequestHandle> waiting_;

  mutable std::mutex mutex_;
  SchedulerStats engine_stats_;  // written by the loop only
  std::vector<RankTelemetry> ranks_;
  int64_t ranks_steps_ = 0;
  int64_t active_ = 0;
  std::optional<TimePoint> stop_deadline_;
};

}  // namespace trireme::worker
