#pragma once
// Vectorized passes over a row of logits.

#include <cstdint>

namespace trireme::cpu {

struct RowMaximum {
  float value;    // -infinity where every element is
  int64_t index;  // of the first element equal to it; -1 where the row holds a NaN
};
RowMaximum row_maximum(const float* x, int64_t count);

/// weights[i] = exp((x[i] - maximum) * inverse_temperature); returns their sum. weights may be null.
double exp_weights(const float* x, int64_t count, float maximum, float inverse_temperature, float* weights);

}  // namespace trireme::cpu
