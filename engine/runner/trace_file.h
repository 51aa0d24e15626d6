#pragma once
// A picture of what the ranks of a replica did, for https://ui.perfetto.dev or chrome://tracing.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/runner/collective_comparison.h"

namespace trireme {

struct TraceReplica {
  int index = 0;  // the trace's pid
  std::string id;
};

/// JSON in the trace event format (object form), one time axis: microseconds on the steady clock of rank 0.
/// pid: the replica; tid: the rank, or, of those of its steps that its device marked, the number of ranks
/// more (StepMarks). Complete events ("ph": "X"), by rank in order of their beginning:
///   cat "step"        name "step", args {step}; phases lie within
///   cat "phase"       name: the phase's; args {step}. Phases of a rank do not overlap
///   cat "collective"  name all_reduce, gather or broadcast: the phase `collective`; args {step, collective,
///   layer}
///                     (layer -1: outside the layers); where all ranks remember it, with two events within,
///   cat "wait"        "waiting": for slower ranks, and "transfer"
/// "metadata" holds replica, and of each rank its host, clock_offset_ns to rank 0 (taken off already) and
/// clock_error_ns, by how much its events may still be misplaced.
/// Format: "Trace Event Format", Google, 2016.
std::string chrome_trace(const TraceReplica& replica, const std::vector<RankTimeline>& ranks);

/// Writes the file anew; what was there before stays until all of it is written. Errors name it.
absl::Status write_trace(const std::string& path, const TraceReplica& replica,
                         const std::vector<RankTimeline>& ranks);

}  // namespace trireme
