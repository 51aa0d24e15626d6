#pragma once
// Biases, penalties and bans on one row of logits: steps 1 to 4 of SamplingRow.

#include <cstdint>

#include "kernels/backend.h"

namespace trireme::cpu {

/// What of the flat lists is one row's.
struct RowEdits {
  const int32_t* bias_ids = nullptr;
  const float* biases = nullptr;
  const int32_t* banned_ids = nullptr;
  const int32_t* counts = nullptr;  // [count], see Backend::set_token_counts(); null without penalties
};

/// Walks the flat lists row by row, from row `first` on.
class EditReader {
 public:
  EditReader(const SamplingRow* rows, int64_t first, const SamplingLists& lists);
  /// The next row's.
  RowEdits next();

 private:
  const SamplingRow* rows_;
  int64_t row_ = 0;
  const SamplingLists& lists_;
  int64_t bias_ = 0, banned_ = 0;
};

/// out = x with the row's edits; [count]. Infinite logits stay as they are.
void edit_logits(const float* x, int64_t count, const SamplingRow& row, const RowEdits& edits, float* out);

}  // namespace trireme::cpu
