#pragma once
// What the ranks of a replica tell their leader between two plans.

#include <chrono>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/parallel/clock_alignment.h"
#include "engine/parallel/process_group.h"
#include "engine/runner/collective_comparison.h"
#include "engine/runner/rank_telemetry.h"

namespace trireme {

/// All calls are collective over the group, and an error ends its use. One thread.
class TelemetryExchange {
 public:
  /// `phases` must remember its collectives (StepPhases::keep_collectives) where there are several ranks.
  TelemetryExchange(HostGroup& group, const StepPhases& phases, std::chrono::milliseconds deadline);

  /// `own` is what this rank knows by itself. On rank 0: what is known of each rank, by rank; elsewhere
  /// empty.
  absl::StatusOr<std::vector<RankTelemetry>> report(RankTelemetry own);
  /// On rank 0: what each rank remembers (StepPhases::keep_trace), by rank; elsewhere empty.
  absl::StatusOr<std::vector<RankTimeline>> trace();

 private:
  absl::StatusOr<std::vector<std::vector<TimelineRecord>>> gather_records(
      const std::vector<TimelineRecord>& own);
  absl::Status read(const std::vector<std::string>& messages, std::vector<RankTelemetry>& ranks);

  HostGroup& group_;
  const StepPhases& phases_;
  const std::chrono::milliseconds deadline_;
  ClockAlignment clocks_;
  uint64_t num_told_ = 0;               // remembered collectives of this rank
  std::vector<RankTelemetry> known_;    // rank 0: as of the last report
  std::vector<double> waiting_shares_;  // rank 0: of each rank's time in the collectives compared last
};

}  // namespace trireme
