#pragma once
// Where the phases of a step lie in the work of a device that works by itself: told by marks in some steps,
// assumed for the others.

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "engine/runner/phase_marker.h"
#include "engine/runner/step_phases.h"
#include "kernels/backend.h"

namespace trireme {

/// What lies between two marks of a step.
struct MarkedPart {
  Phase phase = Phase::compute;
  CollectiveKind kind = CollectiveKind::none;
  int16_t layer = -1;       // of a collective
  uint32_t collective = 0;  // its number among those of the step, from 1; 0: none
};
using MarkedParts = std::vector<MarkedPart>;

/// How a step came to the device: as a recorded graph, or one operation after the other.
enum class StepKind : uint8_t { replayed, enqueued };

/// A step on its way.
struct MarkedStep {
  StepKind kind = StepKind::enqueued;
  const MarkedParts* parts = nullptr;  // null: without marks
  uint64_t num_collectives_before = 0;
  uint64_t step = 0;
};

/// Marks the phases of one replayed step in 64, and of one other in 8. The time the host waits for a step is
/// split as the last marked step of the same kind spent its own on the device; collectives of marked steps
/// are remembered with the moments at which the device came to them and left them. One thread.
class StepMarks final : public PhaseMarker {
 public:
  /// One of so many, by StepKind.
  static constexpr std::array<int, 2> kPeriods = {64, 8};

  /// Of a forward of so many layers: two collectives in each, of the embedding, of the logits and of the ids,
  /// computing before, between and behind them, and drawing.
  static int num_parts(int num_layers) { return 2 * (2 * num_layers + 3) + 2; }

  /// For steps of at most `most_parts` parts, so `marks` has one more, of which at most `steps_in_flight` are
  /// on their way. `phases` must outlive it.
  StepMarks(std::unique_ptr<Marks> marks, int most_parts, size_t steps_in_flight, StepPhases& phases);

  /// Whether the next step is to be marked. To be asked for each; equal on all ranks whose steps are, and
  /// only where the marks of the last one have been read.
  bool choose(StepKind kind);

  /// Between these two, phases are told to the marks alone. `parts`, where given, get what is enqueued, and
  /// marks are put around it; end() is false when there were more than most_parts, so that it cannot be read.
  /// `num_collectives` came before it.
  void begin(MarkedParts* parts, uint64_t num_collectives);
  bool end();

  /// `step` has finished, and of this the host has waited for `waited_ns`, in Phase::compute.
  void finish(const MarkedStep& step, int64_t waited_ns);

  /// Of the moments of the last marked step, against this rank's own clock.
  int64_t clock_error_ns() const { return clock_error_ns_; }
  uint64_t num_marked() const { return num_marked_; }

  Phase enter(Phase phase) override;
  void end_collective(uint32_t number, int16_t layer, CollectiveKind kind, Phase before) override;

 private:
  void add_part(Phase phase);
  void read(const MarkedStep& step);

  const std::unique_ptr<Marks> marks_;
  const size_t most_parts_;
  const size_t steps_in_flight_;
  StepPhases& phases_;

  std::array<int, kPeriods.size()> num_since_ = kPeriods;  // the last marked step of the kind, that included
  size_t num_launches_since_;                              // the last marked one of any

  MarkedParts* parts_ = nullptr;  // null: not marked
  bool has_room_ = true;
  uint64_t num_collectives_before_ = 0;
  Phase current_ = Phase::compute;

  std::vector<int64_t> moments_;
  std::array<std::array<double, kNumPhases>, kPeriods.size()> shares_{};  // by StepKind, then Phase
  int64_t clock_error_ns_ = 0;
  uint64_t num_marked_ = 0;
};

}  // namespace trireme
