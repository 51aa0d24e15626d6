#pragma once

#include "engine/runner/step_phases.h"
#include "engine/runner/step_progress.h"

namespace trireme {

/// Around one collective: numbers it for the watchdog, and records when this rank arrived at it and left it.
class CollectiveScope {
 public:
  CollectiveScope(StepPhases& phases, StepProgress& progress, CollectiveKind kind)
      : phases_(phases),
        number_(static_cast<uint32_t>(progress.count_collectives(1))),
        layer_(static_cast<int16_t>(progress.layer.load(std::memory_order_relaxed))),
        kind_(kind) {
    progress.move();
    before_ = phases.enter(Phase::collective);
  }
  ~CollectiveScope() { phases_.end_collective(number_, layer_, kind_, before_); }
  CollectiveScope(const CollectiveScope&) = delete;
  CollectiveScope& operator=(const CollectiveScope&) = delete;

 private:
  StepPhases& phases_;
  uint32_t number_;
  int16_t layer_;
  CollectiveKind kind_;
  Phase before_ = Phase::none;
};

}  // namespace trireme
