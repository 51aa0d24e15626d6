#pragma once

#include <chrono>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "worker/step_engine.h"
#include "worker/trace_keeper.h"

namespace trireme::worker {

/// The real engine behind the loops' interfaces. `engine` must outlive it.
class EngineAdapter final : public StepEngine, public StepFollower {
 public:
  /// `traces`, where given, gets what the ranks remember of their last steps: once they have been stopped,
  /// and, with an interval, beside their work, when telemetry is gathered.
  explicit EngineAdapter(Engine& engine, TraceKeeper* traces = nullptr,
                         std::chrono::milliseconds interval = {})
      : engine_(engine), traces_(traces), interval_(interval) {}

  absl::Status submit(Request request) override { return engine_.submit(std::move(request)); }
  bool cancel(RequestHandle handle) override { return engine_.cancel(handle); }
  bool has_work() const override { return engine_.has_work(); }
  absl::StatusOr<bool> step(std::vector<TokenOutput>& outputs) override { return engine_.step(outputs); }
  absl::Status broadcast_idle() override { return engine_.broadcast_idle(); }
  absl::Status broadcast_stop() override {
    if (traces_ == nullptr) return engine_.broadcast_stop();
    const auto trace = engine_.gather_trace();
    if (!trace.ok()) return trace.status();
    absl::Status stopped = engine_.broadcast_stop();
    if (stopped.ok()) traces_->write_now(*trace);
    return stopped;
  }
  SchedulerStats stats() const override { return engine_.stats(); }
  void list_waiting(std::vector<RequestHandle>& handles) const override { engine_.list_waiting(handles); }
  absl::Status check_integrity() const override { return engine_.check_integrity(); }
  int64_t collective_ns() const override { return engine_.phases().nanoseconds(Phase::collective); }
  StepPhases& phases() override { return engine_.phases(); }
  absl::StatusOr<std::vector<RankTelemetry>> gather_telemetry() override {
    if (absl::Status traced = trace_when_due(); !traced.ok()) return traced;
    return engine_.gather_telemetry();
  }
  absl::StatusOr<bool> follow(std::chrono::milliseconds deadline) override {
    return engine_.follow(deadline);
  }

 private:
  using Clock = std::chrono::steady_clock;

  /// Steps that were traced already are not traced again.
  absl::Status trace_when_due() {
    if (traces_ == nullptr || interval_.count() == 0 || traces_->busy()) return absl::OkStatus();
    const int64_t steps = engine_.stats().steps;
    if (steps == traced_steps_ || Clock::now() - last_trace_ < interval_) return absl::OkStatus();
    auto trace = engine_.gather_trace();
    if (!trace.ok()) return trace.status();
    last_trace_ = Clock::now();
    traced_steps_ = steps;
    traces_->write_beside(*std::move(trace));
    return absl::OkStatus();
  }

  Engine& engine_;
  TraceKeeper* const traces_;
  const std::chrono::milliseconds interval_;
  Clock::time_point last_trace_ = Clock::now();
  int64_t traced_steps_ = 0;
};

}  // namespace trireme::worker
