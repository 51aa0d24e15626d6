#pragma once
// What tensor parallelism would give on devices that are not at hand: times of single shards, measured one by
// one, plus the sums between ranks that were left out, from a fit or from published curves.

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/plan/all_reduce_cost.h"

namespace trireme {

/// One batch size on one shard of `tp_size`, without communication.
struct ShardTime {
  int tp_size = 1;
  int batch = 1;
  double step_ms = 0;  // median decode step
  double step_ms_p99 = 0;
  double prefill_tokens_per_s = 0;  // 0: not known
};

/// What the shards were cut from and how they ran.
struct ShardRun {
  int num_layers = 0, hidden_size = 0;
  int prompt_tokens = 0, max_step_tokens = 0;
  int message_element_bytes = 2;  // of what is summed
};

/// The cost of one all-reduce and how far it may be off, as a fraction.
struct CollectiveEstimate {
  AllReduceCost cost;
  double uncertainty = 0;
};

/// A value and what it may be between.
struct Range {
  double low = 0, central = 0, high = 0;
};

struct ProjectedPoint {
  int tp_size = 1;
  int batch = 1;
  double shard_ms = 0;
  Range all_reduce_ms;  // of a decode step
  Range step_ms;
  Range tokens_per_s;
  int base_tp_size = 1;      // the smallest that was measured at this batch
  Range efficiency;          // speed over that of the base, per device; central 1 for the base itself
  Range prefill_efficiency;  // 0 where prefill was not measured
};

/// Ranks do not end together, and head and host are not in a shard's time: 3 to 5 % of a step, 4 % taken.
inline constexpr Range kTensorParallelSkew{0.03, 0.04, 0.05};

/// Points in the order of batch, then size. Of a step the low end is the median shard with the fastest
/// collectives and least skew, the high end its 99th percentile with the slowest and most. INVALID_ARGUMENT
/// for times that are not above 0, a size twice at one batch, and a size above 1 without an estimate.
absl::StatusOr<std::vector<ProjectedPoint>> project(const std::vector<ShardTime>& shards, const ShardRun& run,
                                                    const std::map<int, CollectiveEstimate>& collectives);

}  // namespace trireme
