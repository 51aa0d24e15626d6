#pragma once

#include <functional>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "worker/step_engine.h"

namespace trireme::worker {

/// The real engine behind the loops' interfaces. `engine` must outlive it.
class EngineAdapter final : public StepEngine, public StepFollower {
 public:
  using OnTrace = std::function<void(const std::vector<RankTimeline>&)>;
  /// `on_trace`, where given, gets what the ranks remember of their last steps, once they have been stopped.
  explicit EngineAdapter(Engine& engine, OnTrace on_trace = nullptr)
      : engine_(engine), on_trace_(std::move(on_trace)) {}

  absl::Status submit(Request request) override { return engine_.submit(std::move(request)); }
  bool cancel(RequestHandle handle) override { return engine_.cancel(handle); }
  bool has_work() const override { return engine_.has_work(); }
  absl::StatusOr<bool> step(std::vector<TokenOutput>& outputs) override { return engine_.step(outputs); }
  absl::Status broadcast_idle() override { return engine_.broadcast_idle(); }
  absl::Status broadcast_stop() override {
    if (!on_trace_) return engine_.broadcast_stop();
    const auto trace = engine_.gather_trace();
    if (!trace.ok()) return trace.status();
    absl::Status stopped = engine_.broadcast_stop();
    if (stopped.ok()) on_trace_(*trace);
    return stopped;
  }
  SchedulerStats stats() const override { return engine_.stats(); }
  absl::Status check_integrity() const override { return engine_.check_integrity(); }
  int64_t collective_ns() const override { return engine_.phases().nanoseconds(Phase::collective); }
  StepPhases& phases() override { return engine_.phases(); }
  absl::StatusOr<std::vector<RankTelemetry>> gather_telemetry() override {
    return engine_.gather_telemetry();
  }
  absl::StatusOr<bool> follow(std::chrono::milliseconds deadline) override {
    return engine_.follow(deadline);
  }

 private:
  Engine& engine_;
  const OnTrace on_trace_;
};

}  // namespace trireme::worker
