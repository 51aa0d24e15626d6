#pragma once

#include "engine/engine.h"
#include "worker/step_engine.h"

namespace trireme::worker {

/// The real engine behind the loops' interfaces. `engine` must outlive it.
class EngineAdapter final : public StepEngine, public StepFollower {
 public:
  explicit EngineAdapter(Engine& engine) : engine_(engine) {}

  absl::Status submit(Request request) override { return engine_.submit(std::move(request)); }
  bool cancel(RequestHandle handle) override { return engine_.cancel(handle); }
  bool has_work() const override { return engine_.has_work(); }
  absl::StatusOr<bool> step(std::vector<TokenOutput>& outputs) override { return engine_.step(outputs); }
  absl::Status broadcast_idle() override { return engine_.broadcast_idle(); }
  absl::Status broadcast_stop() override { return engine_.broadcast_stop(); }
  SchedulerStats stats() const override { return engine_.stats(); }
  absl::Status check_integrity() const override { return engine_.check_integrity(); }
  int64_t collective_ns() const override { return engine_.phases().nanoseconds(Phase::collective); }
  absl::StatusOr<std::vector<RankTelemetry>> gather_telemetry() override {
    return engine_.gather_telemetry();
  }
  absl::StatusOr<bool> follow(std::chrono::milliseconds deadline) override {
    return engine_.follow(deadline);
  }

 private:
  Engine& engine_;
};

}  // namespace trireme::worker
