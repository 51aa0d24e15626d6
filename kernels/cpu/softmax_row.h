#pragma once
// Vectorized passes over a row of logits or of weights (exponentials), in runs of kRun elements.

#include <cstdint>

namespace trireme::cpu {

inline constexpr int64_t kRun = 256;
inline int64_t num_runs(int64_t count) { return (count + kRun - 1) / kRun; }

struct RowMaximum {
  float value;    // -infinity where every element is
  int64_t index;  // of the first element equal to it; -1 where the row holds a NaN
};
RowMaximum row_maximum(const float* x, int64_t count);

/// The sum of exp(x[i] - maximum).
double sum_exp(const float* x, int64_t count, float maximum);

/// Natural log of the softmax at id. maximum: of the row; log_sum: the log of sum_exp(x, count, maximum).
inline float log_probability(const float* x, int64_t id, float maximum, double log_sum) {
  return static_cast<float>(static_cast<double>(x[id]) - maximum - log_sum);
}

/// A run of weights.
struct Run {
  double sum;
  float maximum;
};

/// weights[i] = exp((x[i] - maximum) * inverse_temperature); runs: [num_runs(count)]. Returns the sum of all.
double exp_weights(const float* x, int64_t count, float maximum, float inverse_temperature, float* weights,
                   Run* runs);

/// Makes the weights below `at_least` zero and returns the sum of the others.
double drop_below(float* weights, int64_t count, float at_least);

}  // namespace trireme::cpu
