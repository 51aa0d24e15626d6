#pragma once
// How far the planner's arithmetic is from throughput that others published.

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/plan/planner.h"
#include "engine/plan/saturation.h"

namespace trireme {

/// A published figure: requests of one size, all there at once, on one replica.
struct SweepPoint {
  int prompt_tokens = 0, output_tokens = 0, num_requests = 0, tp_size = 1;
  double output_tokens_per_s = 0;
  bool held_out = false;  // never looked at while the arithmetic was written
};

/// CSV with the columns prompt_tokens, output_tokens, requests, tp_size, output_tokens_per_s and, where
/// known, held_out. INVALID_ARGUMENT naming line and column.
absl::StatusOr<std::vector<SweepPoint>> parse_sweep(std::string_view csv, const std::string& where);

/// How the published runs were set up.
struct SweepConditions {
  ModelSpec model;
  GpuSpec gpu;
  NumberFormat weights, cache;
  int max_step_tokens = 8192;
  int max_running = 4096;
  double kv_share = 0.99;  // of the memory that the weights leave
  RooflineFractions fractions;
};

struct PointScore {
  SweepPoint point;
  int running = 0;  // sequences at once, that the cache holds
  SaturatedRate predicted;
  double error = 0;  // predicted / published - 1
};

/// The least of NCCL's and custom all-reduce curves. FAILED_PRECONDITION naming a point whose layout the
/// model cannot be cut for, or whose requests do not fit.
absl::StatusOr<std::vector<PointScore>> score_sweep(const std::vector<SweepPoint>& points,
                                                    const SweepConditions& conditions,
                                                    const AllReduceTable& all_reduce);

/// Of predicted / published - 1; the middle one, or the mean of the two in the middle. 0 for none.
double median_absolute(const std::vector<double>& errors);
double relative_error(double predicted, double published);

}  // namespace trireme
