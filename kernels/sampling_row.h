#pragma once

#include <cstdint>

namespace trireme {

/// How one row of logits becomes a token. Plain data: it travels in a step plan.
/// Neutral values switch a filter off: top_k 0, top_p 1, min_p 0. temperature 0 is greedy (the lowest id
/// among equals).
struct SamplingRow {
  float temperature = 0;
  int32_t top_k = 0;
  float top_p = 1;
  float min_p = 0;
  uint64_t seed = 0;          // key of the counter-based generator
  uint32_t sample_index = 0;  // counter word 0: which of the request's n samples
  uint32_t output_index = 0;  // counter word 1: how many tokens came before this one
};

}  // namespace trireme
