#pragma once
// Bytes per rank by kind: predicted before loading, measured after. The planner and the load use this same
// arithmetic.

#include <cstdint>
#include <string>
#include <vector>

#include "engine/plan/shard_plan.h"

namespace trireme {

struct LedgerLine {
  std::string kind;        // as predicted_lines() names them, and what only a load knows
  int64_t predicted = -1;  // bytes; -1: not known
  int64_t measured = -1;   // bytes; -1: not measured
};

/// Predicted: the most they may take.
inline constexpr char kGraphsLine[] = "decode graphs";

/// What a rank holds, by kind and in the order of printing: weights, KV cache, activations, and where they
/// take something token counts, device context, workspace, communicator and decode graphs.
std::vector<LedgerLine> predicted_lines(const RankBytes& bytes, int64_t kv_cache_bytes);

struct ByteLedger {
  int rank = 0;
  int num_sharers = 1;  // ranks on this one's GPU: each counts on an equal part of it
  std::vector<LedgerLine> lines;
  int64_t resident_bytes = -1;  // of the process or device, after loading
  int64_t read_bytes = -1;      // from the checkpoint

  int64_t total_predicted() const;
  /// One line per kind, right-aligned MiB, predicted beside measured, and whether the GPU is shared.
  std::string to_text() const;
};

}  // namespace trireme
