#pragma once
// What a model needs and would reach on devices that need not be there: every layout of every device count,
// with its bytes, its speed and its price, or the reason why not.

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/plan/all_reduce_cost.h"
#include "engine/plan/gpu_table.h"
#include "engine/plan/model_table.h"
#include "engine/plan/step_cost.h"

namespace trireme {

enum class PlanTarget { latency, throughput };

struct PlanRequest {
  ModelSpec model;
  NumberFormat weights{"bf16", 16, 0, false};
  NumberFormat cache{"bf16", 16, 0, false};
  GpuSpec gpu;  // of a mixed inventory: weakest_of() all
  std::vector<int> devices = {1, 2, 4, 8};
  int devices_per_host = 8;
  int context = 0;        // tokens of every sequence, prompt and output; 0: 4,096 or what the model has
  int prompt_tokens = 0;  // of the prefill estimate; 0: half the context
  int batch = 0;          // sequences at once, over all replicas; 0: see LayoutEstimate::throughput
  int max_step_tokens = 2048;
  PlanTarget target = PlanTarget::throughput;
  double usd_per_device_hour = 0;  // 0: the table's
  AllReduceChoice all_reduce = AllReduceChoice::nccl;
  RooflineFractions fractions;
};

/// Decoding with `batch` sequences per replica, all of them at the full context.
struct DecodeEstimate {
  int batch = 0;
  StepCost step;
  double user_tokens_per_s = 0;       // of one sequence
  double total_tokens_per_s = 0;      // of all replicas
  double usd_per_million_tokens = 0;  // 0: no price
};

struct LayoutEstimate {
  int devices = 1, tp_size = 1, replicas = 1;
  std::string refused;           // why not; empty: it fits
  RankBytes bytes;               // of rank 0, which holds most, for max_step_tokens and `largest_batch`
  int64_t memory_bytes = 0;      // usable, per device
  int64_t kv_cache_bytes = 0;    // what the cache may take per rank
  int64_t weight_bytes_all = 0;  // of one replica, all ranks
  int largest_batch = 0;         // sequences of the context per replica, at most kMaxPlannedBatch
  DecodeEstimate latency;        // one sequence per replica
  DecodeEstimate throughput;     // --batch shared out; without it the largest batch, at most 256 per replica
  double prefill_tokens_per_s = 0;  // of all replicas, one prompt at a time on each
  double ttft_ms = 0;               // of one prompt on an idle replica
  double all_reduce_us = 0;         // one of them, in a decode step of the throughput estimate
  std::string all_reduce_origin;
  bool best = false;  // of its device count, for the target
};

inline constexpr int kMaxPlannedBatch = 4096;

struct PlanReport {
  PlanRequest request;                  // defaults filled in
  std::vector<LayoutEstimate> layouts;  // by device count, then tensor-parallel size
  int best = -1;  // index; latency: the fastest for one user; throughput: most tokens/s per device
  std::vector<std::string> assumptions, notes;
};

/// Device counts must rise and be 1 to 4,096. INVALID_ARGUMENT naming what is wrong.
absl::Status check_devices(const std::vector<int>& devices);

/// INVALID_ARGUMENT for a request that no device could meet. A layout that cannot be is in the report, with
/// the reason.
absl::StatusOr<PlanReport> plan_deployment(PlanRequest request, const AllReduceTable& all_reduce);

/// Sequences of `context` tokens that fit beside the weights on one rank, at most `limit`. The activations
/// grow with the number of sequences.
int largest_batch(const ModelShape& model, const TensorParallelLayout& layout, int64_t memory_bytes,
                  int64_t context, int64_t max_step_tokens, int limit, const DeviceOverhead& overhead,
                  double kv_share = kKvCacheShare);

}  // namespace trireme
