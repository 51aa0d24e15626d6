#include "engine/plan/byte_ledger.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace trireme {
namespace {

std::string mebibytes(int64_t bytes) {
  return bytes < 0 ? std::string("-") : absl::StrFormat("%.1f", static_cast<double>(bytes) / (1 << 20));
}

}  // namespace

std::vector<LedgerLine> predicted_lines(const RankBytes& bytes, int64_t kv_cache_bytes) {
  std::vector<LedgerLine> lines = {{"weights", bytes.weights, -1},
                                   {"KV cache", kv_cache_bytes, -1},
                                   {"activations", bytes.activations, -1}};
  for (const LedgerLine& line : {LedgerLine{"token counts", bytes.token_counts, -1},
                                 LedgerLine{"device context", bytes.device.context, -1},
                                 LedgerLine{"workspace", bytes.device.workspace, -1},
                                 LedgerLine{"communicator", bytes.device.communicator, -1},
                                 LedgerLine{kGraphsLine, bytes.device.graphs, -1}}) {
    if (line.predicted > 0) lines.push_back(line);
  }
  return lines;
}

int64_t ByteLedger::total_predicted() const {
  int64_t total = 0;
  for (const LedgerLine& line : lines) total += line.predicted > 0 ? line.predicted : 0;
  return total;
}

std::string ByteLedger::to_text() const {
  std::string text = absl::StrFormat("%-14s %12s %12s  (MiB, rank %d)\n", "", "predicted", "measured", rank);
  for (const LedgerLine& line : lines) {
    absl::StrAppend(&text, absl::StrFormat("%-14s %12s %12s\n", line.kind, mebibytes(line.predicted),
                                           mebibytes(line.measured)));
  }
  absl::StrAppend(&text, absl::StrFormat("%-14s %12s %12s\n", "resident", mebibytes(total_predicted()),
                                         mebibytes(resident_bytes)));
  absl::StrAppend(&text, absl::StrFormat("%-14s %12s %12s\n", "read", "", mebibytes(read_bytes)));
  if (num_sharers > 1) {
    absl::StrAppend(&text, absl::StrFormat("%d ranks share the GPU: of its memory 1/%d is counted here\n",
                                           num_sharers, num_sharers));
  }
  return text;
}

}  // namespace trireme
