#pragma once
// Counts for metrics: cheap to add to on the way of a token, read from another thread.

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

namespace trireme {

/// Only goes up. Any thread.
class Counter {
 public:
  void add(int64_t amount = 1) { value_.fetch_add(amount, std::memory_order_relaxed); }
  int64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<int64_t> value_{0};
};

/// How many values fell into each of a fixed row of buckets, as Prometheus counts them: bucket i takes values
/// in (upper_bounds[i - 1], upper_bounds[i]], one more takes what is larger than all bounds.
struct HistogramSnapshot {
  std::vector<double> upper_bounds;  // ascending
  std::vector<int64_t> counts;       // [upper_bounds.size() + 1], not cumulative
  int64_t count = 0;                 // of all values
  double sum = 0;

  double mean() const { return count == 0 ? 0 : sum / static_cast<double>(count); }
  /// The value below which a part `q` in [0, 1] of all values lies, interpolated within its bucket (which is
  /// taken to begin at 0 if it is the first with a positive bound); the last bound if it lies beyond that;
  /// 0 when there are no values.
  double quantile(double q) const;
};

/// observe() takes no lock and no memory. Any thread; a snapshot taken meanwhile may miss values that are
/// just being added, in count or in sum.
class Histogram {
 public:
  /// Bounds must be finite and ascend strictly; there must be at least one.
  explicit Histogram(std::vector<double> upper_bounds);

  /// NaN is not counted.
  void observe(double value);
  HistogramSnapshot snapshot() const;

  /// first, first * factor, ...: `num_bounds` of them.
  static std::vector<double> exponential_bounds(double first, double factor, int num_bounds);

 private:
  std::vector<double> upper_bounds_;
  std::unique_ptr<std::atomic<int64_t>[]> counts_;
  std::atomic<double> sum_{0};
};

}  // namespace trireme
