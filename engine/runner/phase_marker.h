#pragma once

#include "engine/runner/timeline_record.h"

namespace trireme {

/// Is told of phases where what the host does only enqueues them, and their own time is the device's. One
/// thread.
class PhaseMarker {
 public:
  virtual ~PhaseMarker() = default;
  /// What is enqueued from now on belongs to `phase`. Returns the one before.
  virtual Phase enter(Phase phase) = 0;
  /// The phase `collective` ends; `before` goes on.
  virtual void end_collective(uint32_t number, int16_t layer, CollectiveKind kind, Phase before) = 0;
};

}  // namespace trireme
