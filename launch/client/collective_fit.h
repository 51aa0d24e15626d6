#pragma once
// What a collective costs as a function of its size: a constant and a rate.

#include <cstdint>
#include <span>

#include "absl/status/statusor.h"

namespace trireme::client {

struct CollectivePoint {
  int64_t bytes = 0;
  double time_us = 0;
};

/// time_us = alpha_us + bytes / (beta_gb_s * 1000). Source of the model: R. W. Hockney, "The communication
/// challenge for MPP", Parallel Computing 20 (1994).
struct CollectiveFit {
  double alpha_us = 0;   // at least 0
  double beta_gb_s = 0;  // algorithm bandwidth, above 0
  /// Of (fitted - measured) / measured: root of the mean square, and the largest magnitude.
  double rms_residual = 0, max_residual = 0;

  double time_us(int64_t bytes) const { return alpha_us + static_cast<double>(bytes) / (beta_gb_s * 1e3); }
};

/// Least squares of the relative errors, so that small messages count as much as large ones.
/// FAILED_PRECONDITION with fewer than two sizes, and where the time does not grow with the size.
/// INVALID_ARGUMENT for a time that is not above 0.
absl::StatusOr<CollectiveFit> fit_collective(std::span<const CollectivePoint> points);

}  // namespace trireme::client
