#include "engine/plan/sweep_score.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "engine/plan/csv_table.h"

namespace trireme {
namespace {

absl::StatusOr<PointScore> score_point(const SweepPoint& point, const ModelShape& shape,
                                       const SweepConditions& conditions, const AllReduceTable& all_reduce) {
  constexpr int kDevicesPerHost = 8;
  auto layout = layout_tensor_parallel(shape, point.tp_size);
  if (!layout.ok()) return layout.status();
  auto model = StepModel::create(
      shape, *layout, conditions.gpu, conditions.weights,
      all_reduce.cost(conditions.gpu, point.tp_size, kDevicesPerHost, AllReduceChoice::best),
      conditions.fractions);
  if (!model.ok()) return model.status();
  PointScore score;
  score.point = point;
  score.running = largest_batch(
      shape, *layout, conditions.gpu.usable_bytes(), int64_t{point.prompt_tokens} + point.output_tokens,
      conditions.max_step_tokens, conditions.max_running, cuda_overhead(point.tp_size), conditions.kv_share);
  if (score.running == 0) {
    return absl::FailedPreconditionError(absl::StrCat("the sweep's point of ", point.prompt_tokens, " and ",
                                                      point.output_tokens, " tokens at tensor-parallel size ",
                                                      point.tp_size, " does not fit ", conditions.gpu.name));
  }
  score.predicted = saturate(*model, {point.prompt_tokens, point.output_tokens, point.num_requests,
                                      score.running, conditions.max_step_tokens});
  score.error = relative_error(score.predicted.output_tokens_per_s, point.output_tokens_per_s);
  return score;
}

}  // namespace

double relative_error(double predicted, double published) { return predicted / published - 1; }

double median_absolute(const std::vector<double>& errors) {
  if (errors.empty()) return 0;
  std::vector<double> sizes;
  for (double error : errors) sizes.push_back(std::abs(error));
  std::sort(sizes.begin(), sizes.end());
  const size_t middle = sizes.size() / 2;
  return sizes.size() % 2 == 1 ? sizes[middle] : (sizes[middle - 1] + sizes[middle]) / 2;
}

absl::StatusOr<std::vector<SweepPoint>> parse_sweep(std::string_view csv, const std::string& where) {
  auto table = CsvTable::parse(
      csv, where, {"prompt_tokens", "output_tokens", "requests", "tp_size", "output_tokens_per_s"});
  if (!table.ok()) return table.status();
  std::vector<SweepPoint> points;
  for (size_t i = 0; i < table->num_rows(); ++i) {
    CsvRow row(*table, i);
    SweepPoint point;
    point.prompt_tokens = row.integer("prompt_tokens", 1, 1 << 24, std::nullopt);
    point.output_tokens = row.integer("output_tokens", 1, 1 << 20, std::nullopt);
    point.num_requests = row.integer("requests", 1, 100000, std::nullopt);
    point.tp_size = row.integer("tp_size", 1, 4096, std::nullopt);
    point.output_tokens_per_s = row.number("output_tokens_per_s", 1e-6, 1e12, std::nullopt);
    point.held_out = row.boolean("held_out", false);
    if (!row.status().ok()) return row.status();
    points.push_back(point);
  }
  return points;
}

absl::StatusOr<std::vector<PointScore>> score_sweep(const std::vector<SweepPoint>& points,
                                                    const SweepConditions& conditions,
                                                    const AllReduceTable& all_reduce) {
  auto shape = with_formats(conditions.model.shape, conditions.weights, conditions.cache);
  if (!shape.ok()) return shape.status();
  std::vector<PointScore> scores;
  for (const SweepPoint& point : points) {
    auto score = score_point(point, *shape, conditions, all_reduce);
    if (!score.ok()) return score.status();
    scores.push_back(*std::move(score));
  }
  return scores;
}

}  // namespace trireme
