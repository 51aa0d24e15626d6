#include "launch/client/collective_fit.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"

namespace trireme::client {
namespace {

/// Sums over the points of products of a = 1 / t, b = bytes / t and 1.
struct Moments {
  double a = 0, b = 0, aa = 0, ab = 0, bb = 0;
};

Moments moments(std::span<const CollectivePoint> points) {
  Moments sums;
  for (const CollectivePoint& point : points) {
    const double a = 1 / point.time_us, b = static_cast<double>(point.bytes) / point.time_us;
    sums.a += a;
    sums.b += b;
    sums.aa += a * a;
    sums.ab += a * b;
    sums.bb += b * b;
  }
  return sums;
}

void set_residuals(std::span<const CollectivePoint> points, CollectiveFit& fit) {
  double squares = 0;
  for (const CollectivePoint& point : points) {
    const double error = std::abs(fit.time_us(point.bytes) / point.time_us - 1);
    squares += error * error;
    fit.max_residual = std::max(fit.max_residual, error);
  }
  fit.rms_residual = std::sqrt(squares / static_cast<double>(points.size()));
}

}  // namespace

// Minimizes the sum of (alpha * a + gamma * b - 1)^2 over the points, gamma in us per byte.
absl::StatusOr<CollectiveFit> fit_collective(std::span<const CollectivePoint> points) {
  for (const CollectivePoint& point : points) {
    if (!(point.time_us > 0) || point.bytes < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("fit: got ", point.time_us, " us for ", point.bytes, " bytes, wanted a time above 0"));
    }
  }
  const auto [least, most] = std::minmax_element(
      points.begin(), points.end(), [](const auto& x, const auto& y) { return x.bytes < y.bytes; });
  if (points.empty() || least->bytes == most->bytes)
    return absl::FailedPreconditionError("fit: needs at least two sizes");
  const Moments sums = moments(points);
  const double determinant = sums.aa * sums.bb - sums.ab * sums.ab;
  double alpha = (sums.a * sums.bb - sums.b * sums.ab) / determinant;
  double gamma = (sums.b * sums.aa - sums.a * sums.ab) / determinant;
  if (alpha < 0) {  // nothing takes less than no time
    alpha = 0;
    gamma = sums.b / sums.bb;
  }
  if (!(gamma > 0) || !std::isfinite(alpha))
    return absl::FailedPreconditionError("fit: the time does not grow with the size");
  CollectiveFit fit;
  fit.alpha_us = alpha;
  fit.beta_gb_s = 1e-3 / gamma;
  set_residuals(points, fit);
  return fit;
}

}  // namespace trireme::client
