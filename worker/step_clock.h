#pragma once
// When things happened in the step loop, for the requests they happened to.

#include <array>
#include <cstdint>

#include "engine/request.h"
#include "worker/outbox.h"
#include "worker/serving_metrics.h"

namespace trireme::worker {

/// Remembers when the last steps began, so that an output which names the first step of its request tells how
/// long that had waited. The engine's thread only.
class StepClock {
 public:
  explicit StepClock(ServingMetrics& metrics) : metrics_(metrics) {}

  /// A step begins; what it plans anew has the number `step` and those after it. `collective_ns`: what the
  /// engine has spent in collectives so far.
  void begin(uint64_t step, int64_t collective_ns);
  /// It has ended; its outputs are noted next.
  void end(int64_t collective_ns);
  /// Writes the times of `sink` that `output` is the milestone of.
  void note(const TokenOutput& output, RequestSink& sink) const;

 private:
  /// A prefill over more steps than this loses the time it began.
  static constexpr size_t kMaxMarks = 1024;
  static constexpr uint64_t kMaxPlans = 8;  // that one call of step() makes, EngineConfig::steps_ahead + 1
  struct Mark {
    uint64_t step = 0;
    int64_t time_ns = 0;
    int64_t collective_ns = 0;
  };

  ServingMetrics& metrics_;
  std::array<Mark, kMaxMarks> marks_{};  // [step % kMaxMarks]
  Mark now_;
};

}  // namespace trireme::worker
