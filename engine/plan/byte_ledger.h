#pragma once
// Bytes per rank by kind: predicted before loading, measured after. The planner and the load use this same
// arithmetic.

#include <cstdint>
#include <string>
#include <vector>

namespace trireme {

struct LedgerLine {
  std::string kind;        // weights, KV cache, activations, token counts
  int64_t predicted = -1;  // bytes; -1: not known
  int64_t measured = -1;   // bytes; -1: not measured
};

struct ByteLedger {
  int rank = 0;
  std::vector<LedgerLine> lines;
  int64_t resident_bytes = -1;  // of the process or device, after loading
  int64_t read_bytes = -1;      // from the checkpoint

  int64_t total_predicted() const;
  /// One line per kind, right-aligned MiB, predicted beside measured.
  std::string to_text() const;
};

}  // namespace trireme
