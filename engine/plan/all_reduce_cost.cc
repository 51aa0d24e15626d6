#include "engine/plan/all_reduce_cost.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/plan/csv_table.h"
#include "kernels/check.h"

namespace trireme {
namespace {

constexpr double kMicrosecond = 1e-6;
constexpr double kNvlink4GbS = 450;
// NVIDIA/nccl src/graph/tuning.cc, protocol LL, ring: 6.6 us and a hop for each of 2 (n - 1) moves.
constexpr double kRingBaseUs = 6.6, kNvlinkHopUs = 0.6, kPcieHopUs = 1.0;
// 363 of 450 GB/s: four H100, busbw without NVLS (stas00/ml-engineering 2026).
constexpr double kNvlinkFraction = 0.8;
// No published curve: devices of one host share switches and the processor's memory. An assumption.
constexpr double kPcieFraction = 0.4;
// Two hosts of eight H100 with NDR InfiniBand, NCCL, up to 1 MiB (microsoft/mscclpp docs/dsl/figs).
constexpr double kHostsAlphaUs = 40, kHostsGbS = 21;

/// GB/s per direction of a 16-lane slot.
double pcie_gb_s(int generation) {
  constexpr double kGeneration3 = 15.75;
  double rate = kGeneration3;
  for (int step = 4; step <= std::min(generation, 9); ++step) rate *= 2;
  return generation == 0 || generation >= 3 ? rate : kGeneration3 / (1 << (3 - generation));
}

AllReduceCurve link_curve(const GpuSpec& gpu, int tp_size) {
  const bool nvlink = gpu.nvlink_gb_s > 0;
  const double moves = 2.0 * (tp_size - 1);
  const double bus_gb_s =
      nvlink ? kNvlinkFraction * gpu.nvlink_gb_s : kPcieFraction * pcie_gb_s(gpu.pcie_generation);
  const double alpha_us = kRingBaseUs + moves * (nvlink ? kNvlinkHopUs : kPcieHopUs);
  std::string origin =
      nvlink ? absl::StrCat("NVLink ", gpu.nvlink_gb_s, " GB/s: NCCL's tuning constants, 80 % of the link")
             : absl::StrCat("PCIe generation ",
                            gpu.pcie_generation > 0 ? absl::StrCat(gpu.pcie_generation) : "3 (assumed)",
                            ": NCCL's tuning constants, 40 % of the link (assumed)");
  return AllReduceCurve::line(alpha_us * kMicrosecond, bus_gb_s * 1e9 * tp_size / moves, std::move(origin));
}

}  // namespace

AllReduceCurve::AllReduceCurve(std::vector<CurvePoint> points, std::string origin, bool goes_on)
    : points_(std::move(points)), origin_(std::move(origin)), goes_on_(goes_on) {
  CHECK_GT(points_.size(), 0u);
}

AllReduceCurve AllReduceCurve::line(double alpha_seconds, double bytes_per_second, std::string origin) {
  return {{{0, alpha_seconds}, {bytes_per_second, alpha_seconds + 1}}, std::move(origin)};
}

double AllReduceCurve::seconds(double bytes) const {
  if (!goes_on_ && bytes > points_.back().bytes) return std::numeric_limits<double>::infinity();
  if (bytes <= points_.front().bytes || points_.size() == 1) return points_.front().seconds;
  size_t right = 1;
  while (right + 1 < points_.size() && points_[right].bytes < bytes) ++right;
  const CurvePoint& a = points_[right - 1];
  const CurvePoint& b = points_[right];
  return a.seconds + (b.seconds - a.seconds) * (bytes - a.bytes) / (b.bytes - a.bytes);
}

double AllReduceCost::seconds(double bytes) const {
  double least = 0;
  for (size_t i = 0; i < curves_.size(); ++i) {
    const double one = curves_[i].seconds(bytes);
    least = i == 0 ? one : std::min(least, one);
  }
  return least;
}

std::string AllReduceCost::origin() const {
  return absl::StrJoin(curves_, " or ", [](std::string* out, const AllReduceCurve& curve) {
    absl::StrAppend(out, curve.origin());
  });
}

absl::Status AllReduceTable::add(std::string_view csv, const std::string& where) {
  auto table = CsvTable::parse(csv, where, {"link", "ranks", "algorithm", "bytes", "microseconds"});
  if (!table.ok()) return table.status();
  for (size_t i = 0; i < table->num_rows(); ++i) {
    CsvRow row(*table, i);
    const std::string link = row.name("link"), algorithm = row.name("algorithm");
    const int ranks = row.integer("ranks", 2, 4096, std::nullopt);
    const CurvePoint point{row.number("bytes", 0, 1e13, std::nullopt),
                           row.number("microseconds", 1e-3, 1e9, std::nullopt) * kMicrosecond};
    auto entry = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& other) {
      return other.link == link && other.algorithm == algorithm && other.ranks == ranks;
    });
    if (entry == entries_.end()) entry = entries_.insert(entry, {link, algorithm, ranks, {}});
    if (!entry->points.empty() && entry->points.back().bytes >= point.bytes) {
      row.fail("bytes", absl::StrCat(point.bytes), "more than in the row before of the same curve");
    }
    if (!row.status().ok()) return row.status();
    entry->points.push_back(point);
  }
  return absl::OkStatus();
}

AllReduceCost AllReduceTable::cost(const GpuSpec& gpu, int tp_size, int devices_per_host,
                                   AllReduceChoice choice) const {
  if (tp_size <= 1) return AllReduceCost();
  if (tp_size > devices_per_host) {
    return AllReduceCost({AllReduceCurve::line(
        kHostsAlphaUs * kMicrosecond, kHostsGbS * 1e9,
        "across hosts: published for two hosts of 8 H100 with NDR InfiniBand, messages up to 1 MiB")});
  }
  std::vector<AllReduceCurve> curves;
  bool goes_on = false;
  for (const Entry& entry : entries_) {
    const bool same_link = entry.link == "nvlink4" && gpu.nvlink_gb_s == kNvlink4GbS;
    const bool is_nccl = entry.algorithm == "nccl";
    if (!same_link || entry.ranks != tp_size || (choice == AllReduceChoice::nccl && !is_nccl)) continue;
    goes_on = goes_on || is_nccl;
    curves.emplace_back(
        entry.points,
        absl::StrCat("published points, ", entry.link, ", ", tp_size, " ranks, ", entry.algorithm), is_nccl);
  }
  if (!goes_on) curves.push_back(link_curve(gpu, tp_size));
  return AllReduceCost(std::move(curves));
}

}  // namespace trireme
