#include "engine/runner/step_marks.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/check.h"

namespace trireme {

StepMarks::StepMarks(std::unique_ptr<Marks> marks, int most_parts, size_t steps_in_flight, StepPhases& phases)
    : marks_(std::move(marks)),
      most_parts_(static_cast<size_t>(most_parts)),
      steps_in_flight_(steps_in_flight),
      phases_(phases),
      num_launches_since_(steps_in_flight),
      moments_(most_parts_ + 1) {}

// By counting alone: how far a rank has come with reading is its own affair, but what was launched as many
// steps ago as can be on their way has been read on every one.
bool StepMarks::choose(StepKind kind) {
  const auto index = static_cast<size_t>(kind);
  const bool chosen =
      phases_.enabled() && num_since_[index] >= kPeriods[index] && num_launches_since_ >= steps_in_flight_;
  num_since_[index] = chosen ? 1 : std::min(num_since_[index] + 1, kPeriods[index]);
  num_launches_since_ = chosen ? 1 : std::min(num_launches_since_ + 1, steps_in_flight_);
  return chosen;
}

void StepMarks::begin(MarkedParts* parts, uint64_t num_collectives) {
  parts_ = parts;
  has_room_ = true;
  num_collectives_before_ = num_collectives;
  if (parts_ != nullptr) parts_->clear();
  current_ = Phase::compute;
  add_part(Phase::compute);
  phases_.set_marker(this);
}

bool StepMarks::end() {
  phases_.set_marker(nullptr);
  if (parts_ != nullptr && has_room_) marks_->record(static_cast<int>(parts_->size()));
  parts_ = nullptr;
  return has_room_;
}

Phase StepMarks::enter(Phase phase) {
  add_part(phase);
  return std::exchange(current_, phase);
}

void StepMarks::end_collective(uint32_t number, int16_t layer, CollectiveKind kind, Phase before) {
  if (parts_ != nullptr && has_room_) {
    MarkedPart& part = parts_->back();
    part.kind = kind;
    part.layer = layer;
    part.collective = number - static_cast<uint32_t>(num_collectives_before_);
  }
  enter(before);
}

void StepMarks::add_part(Phase phase) {
  if (parts_ == nullptr) return;
  has_room_ = has_room_ && parts_->size() < most_parts_;
  if (!has_room_) return;
  marks_->record(static_cast<int>(parts_->size()));
  parts_->push_back({phase, CollectiveKind::none, -1, 0});
}

void StepMarks::finish(const MarkedStep& step, int64_t waited_ns) {
  if (!phases_.enabled()) return;
  if (step.parts != nullptr) read(step);
  const auto& shares = shares_[static_cast<size_t>(step.kind)];
  for (const Phase phase : {Phase::collective, Phase::sample}) {
    const double share = shares[static_cast<size_t>(phase)];
    phases_.move(Phase::compute, phase, static_cast<int64_t>(share * static_cast<double>(waited_ns)));
  }
}

void StepMarks::read(const MarkedStep& step) {
  const MarkedParts& parts = *step.parts;
  const std::span<int64_t> moments(moments_.data(), parts.size() + 1);
  clock_error_ns_ = marks_->read(moments);
  ++num_marked_;
  const int64_t whole = moments.back() - moments.front();
  if (whole <= 0) return;
  auto& shares = shares_[static_cast<size_t>(step.kind)];
  shares.fill(0);
  for (size_t i = 0; i < parts.size(); ++i) {
    const MarkedPart& part = parts[i];
    const int64_t spent = std::max<int64_t>(moments[i + 1] - moments[i], 0);
    shares[static_cast<size_t>(part.phase)] += static_cast<double>(spent) / static_cast<double>(whole);
    const uint32_t number =
        part.collective == 0 ? 0 : static_cast<uint32_t>(step.num_collectives_before) + part.collective;
    phases_.remember_device(
        {moments[i], moments[i + 1], step.step, number, part.layer, part.phase, part.kind});
  }
  phases_.remember_device(
      {moments.front(), moments.back(), step.step, 0, -1, Phase::none, CollectiveKind::none});
}

}  // namespace trireme
