#pragma once
// What summing over the ranks costs: published or fitted curves where there are some, otherwise latency and
// bandwidth of the link.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/plan/gpu_table.h"

namespace trireme {

struct CurvePoint {
  double bytes = 0;
  double seconds = 0;
};

/// Seconds by message size: constant below the first point, straight lines between points, and above the last
/// point its slope, or infinite where the algorithm is not used beyond it.
class AllReduceCurve {
 public:
  AllReduceCurve() = default;
  /// Points of rising bytes, at least one.
  AllReduceCurve(std::vector<CurvePoint> points, std::string origin, bool goes_on = true);
  /// alpha + bytes / beta.
  static AllReduceCurve line(double alpha_seconds, double bytes_per_second, std::string origin);

  double seconds(double bytes) const;
  const std::string& origin() const { return origin_; }
  bool goes_on() const { return goes_on_; }

 private:
  std::vector<CurvePoint> points_;
  std::string origin_;
  bool goes_on_ = true;
};

/// Curves of several algorithms, one of which goes on for all sizes; the least is what a library that chooses
/// by size reaches.
class AllReduceCost {
 public:
  AllReduceCost() = default;  // one rank: free
  explicit AllReduceCost(std::vector<AllReduceCurve> curves) : curves_(std::move(curves)) {}
  double seconds(double bytes) const;
  std::string origin() const;

 private:
  std::vector<AllReduceCurve> curves_;
};

enum class AllReduceChoice { nccl, best };

/// Published points by link, number of ranks and algorithm.
class AllReduceTable {
 public:
  /// CSV with the columns link, ranks, algorithm, bytes, microseconds. INVALID_ARGUMENT naming line and
  /// column.
  absl::Status add(std::string_view csv, const std::string& where);

  /// The cost among `tp_size` devices, of which a host has `devices_per_host`. Published curves for the
  /// link, of which NCCL's go on above their last point; without any, NCCL's own tuning constants for the
  /// latency and a fraction of the link's rate.
  AllReduceCost cost(const GpuSpec& gpu, int tp_size, int devices_per_host, AllReduceChoice choice) const;

 private:
  struct Entry {
    std::string link, algorithm;
    int ranks = 0;
    std::vector<CurvePoint> points;
  };
  std::vector<Entry> entries_;
};

}  // namespace trireme
