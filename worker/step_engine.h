#pragma once
// What the leader and follower loops need of an engine. The real one is behind EngineAdapter; tests and the
// measurement of the serving path itself put scripted ones here.

#include <chrono>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/request.h"
#include "engine/runner/rank_telemetry.h"
#include "engine/scheduler/scheduler.h"

namespace trireme::worker {

/// The leader's side. One thread calls it, the one that created it. Contracts are those of trireme::Engine.
class StepEngine {
 public:
  virtual ~StepEngine() = default;

  virtual absl::Status submit(Request request) = 0;
  /// Whether the handle was known. Nothing of the request is left when it returns.
  virtual bool cancel(RequestHandle handle) = 0;
  virtual bool has_work() const = 0;
  /// One step; appends its tokens. False when there was nothing to run. An error means that the engine is
  /// broken.
  virtual absl::StatusOr<bool> step(std::vector<TokenOutput>& outputs) = 0;
  virtual absl::Status broadcast_idle() = 0;
  virtual absl::Status broadcast_stop() = 0;
  virtual SchedulerStats stats() const = 0;
  /// Appends the handles of the requests that wait: stats().waiting of them.
  virtual void list_waiting(std::vector<RequestHandle>& handles) const = 0;
  /// INTERNAL when blocks and requests do not add up. Takes time in proportion to both.
  virtual absl::Status check_integrity() const = 0;
  /// Spent in collectives since the start; an engine of one rank has none.
  virtual int64_t collective_ns() const { return 0; }
  /// Where the calling thread marks what it does between two steps.
  virtual StepPhases& phases() { return phases_; }
  /// What each rank has to tell, by rank; asks the followers. An error means that the engine is broken.
  virtual absl::StatusOr<std::vector<RankTelemetry>> gather_telemetry() {
    return std::vector<RankTelemetry>();
  }

 private:
  StepPhases phases_;  // of an engine that has none
};

/// A follower's side. One thread.
class StepFollower {
 public:
  virtual ~StepFollower() = default;
  /// Waits for one plan and runs it. False after the stop plan, DEADLINE_EXCEEDED when none came in time.
  virtual absl::StatusOr<bool> follow(std::chrono::milliseconds deadline) = 0;
};

}  // namespace trireme::worker
