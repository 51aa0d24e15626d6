#pragma once
// Bucket bounds of the histograms that are shown to users. Coordinator and leaders use the same.

#include <vector>

namespace trireme {

/// Seconds; for what takes a step or a few: 0.5 ms to 10 s.
inline std::vector<double> step_time_bounds() {
  return {0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1,
          0.15,   0.2,   0.3,   0.5,   0.75, 1,    2,    3,    5,     10};
}

/// Seconds; for whole requests: 1 ms to 40 min.
inline std::vector<double> request_time_bounds() {
  return {0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1,   1.5,
          2,     3,     5,     7.5,  10,   15,   20,  30,  60,  120, 300,  600, 2400};
}

/// Tokens of a prompt or an output.
inline std::vector<double> token_count_bounds() {
  return {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};
}

}  // namespace trireme
