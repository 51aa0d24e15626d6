#pragma once
// Where the time of a step goes. At any moment one phase runs, so the phases add up to the whole.

#include <array>
#include <chrono>
#include <cstdint>
#include <string_view>
#include <utility>

namespace trireme {

enum class Phase : uint8_t { idle, schedule, broadcast, upload, compute, collective, sample, finish };
inline constexpr int kNumPhases = 8;

constexpr std::string_view phase_name(Phase phase) {
  constexpr std::array<std::string_view, kNumPhases> names = {"idle",    "schedule",   "broadcast", "upload",
                                                              "compute", "collective", "sample",    "finish"};
  return names[static_cast<size_t>(phase)];
}

/// What a rank tells the leader of itself now and then. Travels as it lies in memory.
struct RankTelemetry {
  std::array<int64_t, kNumPhases> phase_ns{};  // by Phase, since the start
  int64_t num_compiled_kernels = 0;            // Backend::num_compiled_kernels()
};

/// Nanoseconds per phase since the start, on the steady clock. One thread.
class StepPhases {
 public:
  StepPhases() : since_(now()) {}

  /// Ends the current phase and begins `phase`. Returns the one that ended.
  Phase enter(Phase phase) {
    const int64_t time = now();
    nanoseconds_[static_cast<size_t>(current_)] += time - since_;
    since_ = time;
    return std::exchange(current_, phase);
  }
  int64_t nanoseconds(Phase phase) const { return nanoseconds_[static_cast<size_t>(phase)]; }
  /// All phases, the current one up to now.
  std::array<int64_t, kNumPhases> snapshot() const {
    std::array<int64_t, kNumPhases> all = nanoseconds_;
    all[static_cast<size_t>(current_)] += now() - since_;
    return all;
  }

 private:
  static int64_t now() {
    const auto time = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::nanoseconds>(time).count();
  }
  std::array<int64_t, kNumPhases> nanoseconds_{};
  Phase current_ = Phase::idle;
  int64_t since_;
};

/// Enters a phase for a scope, then goes back to the one before.
class PhaseScope {
 public:
  PhaseScope(StepPhases& phases, Phase phase) : phases_(phases), before_(phases.enter(phase)) {}
  ~PhaseScope() { phases_.enter(before_); }
  PhaseScope(const PhaseScope&) = delete;
  PhaseScope& operator=(const PhaseScope&) = delete;

 private:
  StepPhases& phases_;
  Phase before_;
};

}  // namespace trireme
