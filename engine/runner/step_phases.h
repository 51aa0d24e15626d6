#pragma once
// Where the time of a rank's engine thread goes. Each phase is measured by the clock where it begins and
// where it ends, and none as what the others leave, so that what no phase covers can be told: unaccounted =
// wall - phases. Where one phase interrupts another, a single reading ends the one and begins the other:
// reading the clock is nearly all that a phase costs.

#include <array>
#include <chrono>
#include <cstdint>
#include <utility>

#include "engine/runner/phase_marker.h"
#include "engine/runner/timeline_record.h"

namespace trireme {

/// Nanoseconds of a rank: since its first phase, or between two moments.
struct PhaseTimes {
  std::array<int64_t, kNumPhases> phase_ns{};  // by Phase
  int64_t wall_ns = 0;

  int64_t of(Phase phase) const { return phase_ns[static_cast<size_t>(phase)]; }
  /// Of wall_ns, what no phase covers.
  int64_t unaccounted_ns() const {
    int64_t rest = wall_ns;
    for (const int64_t ns : phase_ns) rest -= ns;
    return rest;
  }
  friend PhaseTimes operator-(PhaseTimes later, const PhaseTimes& earlier) {
    for (size_t i = 0; i < later.phase_ns.size(); ++i) later.phase_ns[i] -= earlier.phase_ns[i];
    later.wall_ns -= earlier.wall_ns;
    return later;
  }
};

/// The clock of a rank's phases. Phases do not overlap: one that begins interrupts the one before
/// (PhaseScope).
///   idle        no work: leader: no request; follower: waiting for the plan of a leader that had none
///   schedule    leader: choosing the sequences of a step
///   broadcast   leader: sending a plan; follower: waiting for the plan of a busy leader, and checking it
///   upload      a plan's integers to the device
///   compute     layers and logits
///   collective  between ranks, waiting for slower ones included (told apart by comparing the ranks' records)
///   sample      drawing tokens, and copying them to the host
///   finish      leader: bookkeeping after a step
///   host        leader: the service around the engine: new requests, tokens to their streams, reports
/// Where a device works by itself, the host enqueues a step, which is `compute`, and waits for it. Then this
/// waiting is what is split into compute, collective and sample: as marks in the device's work tell of some
/// steps (StepMarks), and the steps between two of them like the one before.
/// The first phase starts the clock. Nothing is allocated but by the keep_ functions. One thread.
class StepPhases {
 public:
  using Now = int64_t (*)();  // nanoseconds, never backwards

  static int64_t steady_ns() {
    const auto time = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::nanoseconds>(time).count();
  }
  explicit StepPhases(Now clock = &steady_ns) : now_(clock) {}

  /// Ends the current phase and begins `phase`; none only ends. Returns the one that ended.
  Phase enter(Phase phase) {
    if (marker_ != nullptr) return marker_->enter(phase);
    if (!enabled_ || (current_ == Phase::none && phase == Phase::none)) return Phase::none;
    const int64_t time = now_();
    if (current_ != Phase::none) end({since_, time, step_, 0, -1, current_, CollectiveKind::none});
    return begin(phase, time);
  }
  /// Phase::collective ends; `before` goes on.
  void end_collective(uint32_t number, int16_t layer, CollectiveKind kind, Phase before) {
    if (marker_ != nullptr) return marker_->end_collective(number, layer, kind, before);
    if (!enabled_) return;
    const TimelineRecord record{since_, now_(), step_, number, layer, Phase::collective, kind};
    end(record);
    collectives_.push(record);
    begin(before, record.end_ns);
  }
  /// A phase that was measured elsewhere, or whose name was not known before its end. It must overlap none.
  void add(const TimelineRecord& record) {
    if (!enabled_) return;
    if (started_ == 0 || record.begin_ns < started_) started_ = record.begin_ns;
    end(record);
    if (record.phase == Phase::collective) collectives_.push(record);
  }
  /// Of what `from` was charged with, `ns` were `to`: for what is known only later, as when the events of a
  /// device tell what it did while the host waited for it.
  void move(Phase from, Phase to, int64_t ns) {
    nanoseconds_[static_cast<size_t>(from)] -= ns;
    nanoseconds_[static_cast<size_t>(to)] += ns;
  }

  /// What a device did, whose time is in none of the phases yet: a part of a step, or a whole one.
  void remember_device(const TimelineRecord& record) {
    if (record.end_ns > record.begin_ns) device_trace_.push(record);
    if (record.collective != 0) collectives_.push(record);
  }
  /// From now on phases are only told to `marker`, and the current one goes on; null: until now.
  void set_marker(PhaseMarker* marker) { marker_ = marker; }

  /// The number that records get from now on.
  void set_step(uint64_t step) { step_ = step; }
  uint64_t step() const { return step_; }
  int64_t now() const { return now_(); }
  int64_t nanoseconds(Phase phase) const { return nanoseconds_[static_cast<size_t>(phase)]; }
  /// All phases, the current one up to now.
  PhaseTimes snapshot() const {
    if (started_ == 0) return {};
    const int64_t time = now_();
    PhaseTimes times{nanoseconds_, time - started_};
    if (current_ != Phase::none) times.phase_ns[static_cast<size_t>(current_)] += time - since_;
    return times;
  }

  /// From now on the last `count` collectives are remembered; and the last `count` of all phases and steps.
  void keep_collectives(size_t count) { collectives_ = TimelineRing(count); }
  void keep_trace(size_t count) { trace_ = TimelineRing(count); }
  /// And of what marks tell of a device, in its own time.
  void keep_device_trace(size_t count) { device_trace_ = TimelineRing(count); }
  const TimelineRing& collectives() const { return collectives_; }
  const TimelineRing& trace() const { return trace_; }
  const TimelineRing& device_trace() const { return device_trace_; }
  /// A whole step, for the trace.
  void add_step(const TimelineRecord& record) {
    if (enabled_) trace_.push(record);
  }

  /// False: no clock is read and nothing recorded, to measure what that costs. Only between phases.
  void enable(bool enabled) { enabled_ = enabled; }
  bool enabled() const { return enabled_; }

 private:
  Phase begin(Phase phase, int64_t time) {
    const Phase before = std::exchange(current_, phase);
    if (phase == Phase::none) return before;
    since_ = time;
    if (started_ == 0) started_ = since_;
    return before;
  }
  void end(const TimelineRecord& record) {
    nanoseconds_[static_cast<size_t>(record.phase)] += record.end_ns - record.begin_ns;
    trace_.push(record);
  }

  Now now_;
  std::array<int64_t, kNumPhases> nanoseconds_{};
  Phase current_ = Phase::none;
  bool enabled_ = true;
  PhaseMarker* marker_ = nullptr;
  int64_t since_ = 0;
  int64_t started_ = 0;  // 0: not yet
  uint64_t step_ = 0;
  TimelineRing collectives_, trace_, device_trace_;
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

/// One whole step of the trace: phases lie within it, whichever step they belong to.
class StepScope {
 public:
  explicit StepScope(StepPhases& phases) : phases_(phases) {
    if (phases.trace().enabled()) begin_ = phases.now();
  }
  ~StepScope() {
    if (phases_.trace().enabled())
      phases_.add_step({begin_, phases_.now(), phases_.step(), 0, -1, Phase::none, CollectiveKind::none});
  }
  StepScope(const StepScope&) = delete;
  StepScope& operator=(const StepScope&) = delete;

 private:
  StepPhases& phases_;
  int64_t begin_ = 0;
};

}  // namespace trireme
