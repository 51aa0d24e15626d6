#pragma once
// Measures and verifies the collectives of a group in the manner of nccl-tests.

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/parallel/process_group.h"
#include "kernels/backend.h"
#include "launch/client/collective_fit.h"
#include "launch/client/rank_placement.h"

namespace trireme::client {

enum class CollectiveOp { all_reduce, gather, broadcast };

std::string_view collective_name(CollectiveOp op);
std::optional<CollectiveOp> parse_collective(std::string_view name);

/// busbw / algbw: all_reduce 2(n-1)/n, gather (n-1)/n, broadcast 1. Source: nccl-tests doc/PERFORMANCE.md.
double busbw_factor(CollectiveOp op, int num_ranks);

/// "4KiB:64MiB:x2" (from, to, each so many times the last), "1MiB", or several of these with commas; units
/// none (bytes), KiB, MiB, GiB. Ascending, without repetition; each a multiple of 4 from 4 bytes to 1 GiB, at
/// most 64 of them. INVALID_ARGUMENT says what is wrong where.
absl::StatusOr<std::vector<int64_t>> parse_sizes(const std::string& text);

struct CollectiveBenchOptions {
  std::vector<CollectiveOp> operations = {CollectiveOp::all_reduce};
  /// Of the message: what is summed or sent to all; of a gather, what arrives (rounded up to a multiple of
  /// the ranks).
  std::vector<int64_t> sizes;
  int warmup = 5;
  int iterations = 20;  // one after the other, for one sample; fewer where they would take longer than
  std::chrono::milliseconds longest_sample{250};
  int samples = 7;
  uint64_t seed = 0;  // of the inputs; 0: drawn
};

/// One message size. A sample is the time of its iterations on the rank that took longest, divided by their
/// number.
struct CollectiveFigures {
  int64_t bytes = 0;
  int iterations = 0;
  std::vector<double> samples_us;  // ascending
  double time_us = 0;              // their median
  double algbw_gb_s = 0, busbw_gb_s = 0;
  /// Elements of the verified call, on all ranks, that are not what they must be: beyond the rounding errors
  /// of summing f32 in any order, or, where nothing is summed, not the same bits.
  int64_t wrong = 0;
  bool same_on_all_ranks = true;  // bit by bit
  std::string algorithm;          // of an all_reduce of this size, as the group chose it
};

struct CollectiveReport {
  CollectiveOp op = CollectiveOp::all_reduce;
  double busbw_factor = 1;
  double latency_us = 0;  // of the smallest message: one f32 (of each rank)
  std::vector<CollectiveFigures> sizes;
  /// Over the sizes. FAILED_PRECONDITION says why there is none.
  absl::StatusOr<CollectiveFit> fit = absl::FailedPreconditionError("not measured");
};

struct CollectiveBenchReport {
  std::string group, backend;
  int ranks = 1;
  Placement placement;
  uint64_t seed = 0;
  std::vector<CollectiveReport> operations;

  bool all_right() const;
};

/// Collective over `world`, whose ranks are those of `group`; tensors in memory of `backend`. The report is
/// filled on rank 0. RESOURCE_EXHAUSTED when a rank has no room for the largest message.
absl::StatusOr<CollectiveBenchReport> run_collective_bench(const CollectiveBenchOptions& options,
                                                           HostGroup& world, ProcessGroup& group,
                                                           Backend& backend);

}  // namespace trireme::client
