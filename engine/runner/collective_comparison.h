#pragma once
// Waiting told from transfer: what one rank sees as the length of a collective begins with waiting for the
// ranks that arrive later. Only all ranks' records together say where it ends.

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "engine/parallel/clock_alignment.h"
#include "engine/runner/timeline_record.h"

namespace trireme {

/// What one rank remembers, and how its clock stands to that of rank 0.
struct RankTimeline {
  std::string host;
  ClockOffset clock;
  std::vector<TimelineRecord> records;         // of collectives: by rising number
  std::vector<TimelineRecord> device_records;  // of marked steps, in a trace
};

/// A collective that every rank remembers, on the clock of rank 0.
struct ComparedCollective {
  struct Part {
    const TimelineRecord* record = nullptr;
    int64_t begin_ns = 0;
    int64_t wait_end_ns = 0;  // until then it waited for slower ranks, from then on data moved
    int64_t end_ns = 0;
  };
  std::vector<Part> parts;  // by rank
};

/// Calls `visit` with each collective that is among the records of all ranks, in order. A rank waits
///   in an all_reduce   until the last rank has arrived;
///   in a gather        rank 0: likewise; another one until rank 0 has arrived, if it has waited for it at
///   all; in a broadcast     until rank 0 has arrived; rank 0 for nobody.
/// Waiting is cut to the rank's own time in the collective, so an error of the clocks moves time between
/// waiting and transfer and never adds any.
void compare_collectives(std::span<const RankTimeline> ranks,
                         const std::function<void(const ComparedCollective&)>& visit);

/// Sums of one rank over the compared collectives.
struct WaitingTotals {
  int64_t num_compared = 0;
  int64_t spent_ns = 0;
  int64_t waited_ns = 0;  // of spent_ns
};
/// By rank.
std::vector<WaitingTotals> sum_waiting(std::span<const RankTimeline> ranks);

}  // namespace trireme
