#pragma once

#include <cstdint>

#include "engine/runner/step_phases.h"

namespace trireme {

/// What the leader knows of a rank's time, since the rank's first phase. Travels as it lies in memory.
struct RankTelemetry {
  PhaseTimes times;
  int64_t num_compiled_kernels = 0;  // Backend::num_compiled_kernels()
  uint64_t num_collectives = 0;
  int64_t device_clock_error_ns = 0;  // of the moments a device told, against the rank's clock

  // The leader adds what only the comparison of all ranks tells.
  uint64_t num_compared_collectives = 0;  // of num_collectives
  /// Of times.of(Phase::collective), waiting for slower ranks; the rest is transfer. Those that were not
  /// compared count as if they had been like the others of the same report, or, where it has none, of the
  /// last one that had.
  int64_t collective_wait_ns = 0;
  int64_t clock_offset_ns = 0;  // the rank's clock minus the leader's,
  int64_t clock_error_ns = 0;   // give or take, with those of both devices' moments; 0: both read one clock

  int64_t collective_transfer_ns() const { return times.of(Phase::collective) - collective_wait_ns; }
};

}  // namespace trireme
