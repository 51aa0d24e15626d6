#include "engine/base/histogram.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/check.h"

namespace trireme {

double HistogramSnapshot::quantile(double q) const {
  if (count == 0) return 0;
  const double rank = std::clamp(q, 0.0, 1.0) * static_cast<double>(count);
  double below = 0;
  for (size_t i = 0; i < upper_bounds.size(); ++i) {
    const double in_bucket = static_cast<double>(counts[i]);
    if (in_bucket > 0 && below + in_bucket >= rank) {
      const double upper = upper_bounds[i];
      const double lower = i > 0 ? upper_bounds[i - 1] : std::min(0.0, upper);
      return lower + (upper - lower) * (rank - below) / in_bucket;
    }
    below += in_bucket;
  }
  return upper_bounds.back();
}

Histogram::Histogram(std::vector<double> upper_bounds)
    : upper_bounds_(std::move(upper_bounds)),
      counts_(std::make_unique<std::atomic<int64_t>[]>(upper_bounds_.size() + 1)) {
  CHECK_GE(upper_bounds_.size(), 1u);
  for (size_t i = 0; i < upper_bounds_.size(); ++i) {
    TRIREME_CHECK(std::isfinite(upper_bounds_[i]));
    if (i > 0) CHECK_GT(upper_bounds_[i], upper_bounds_[i - 1]);
  }
}

void Histogram::observe(double value) {
  if (std::isnan(value)) return;
  const auto bound = std::lower_bound(upper_bounds_.begin(), upper_bounds_.end(), value);
  counts_[bound - upper_bounds_.begin()].fetch_add(1, std::memory_order_relaxed);
  sum_.fetch_add(value, std::memory_order_relaxed);
}

HistogramSnapshot Histogram::snapshot() const {
  HistogramSnapshot snapshot;
  snapshot.upper_bounds = upper_bounds_;
  for (size_t i = 0; i <= upper_bounds_.size(); ++i) {
    snapshot.counts.push_back(counts_[i].load(std::memory_order_relaxed));
    snapshot.count += snapshot.counts.back();
  }
  snapshot.sum = sum_.load(std::memory_order_relaxed);
  return snapshot;
}

std::vector<double> Histogram::exponential_bounds(double first, double factor, int num_bounds) {
  CHECK_GT(first, 0);
  CHECK_GT(factor, 1);
  std::vector<double> bounds;
  for (double bound = first; static_cast<int>(bounds.size()) < num_bounds; bound *= factor)
    bounds.push_back(bound);
  return bounds;
}

}  // namespace trireme
