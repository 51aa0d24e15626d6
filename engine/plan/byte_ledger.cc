#include "engine/plan/byte_ledger.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace trireme {
namespace {

std::string mebibytes(int64_t bytes) {
  return bytes < 0 ? std::string("-") : absl::StrFormat("%.1f", static_cast<double>(bytes) / (1 << 20));
}

}  // namespace

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
  return text;
}

}  // namespace trireme
