#include "launch/client/plan_score.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace trireme::client {
namespace {

struct Summary {
  std::vector<double> all, held_out;
  double worst = 0, mean = 0;
};

Summary summarize(const std::vector<PointScore>& scores) {
  Summary summary;
  for (const PointScore& score : scores) {
    summary.all.push_back(score.error);
    if (score.point.held_out) summary.held_out.push_back(score.error);
    summary.mean += score.error / static_cast<double>(scores.size());
    if (std::abs(score.error) > std::abs(summary.worst)) summary.worst = score.error;
  }
  return summary;
}

std::string point_line(const PointScore& score) {
  const StepCost& spent = score.predicted.spent;
  const double percent = score.predicted.seconds / 100;
  return absl::StrCat(
      absl::StrFormat("%6d %6d %3d %8d | %10.1f %10.1f %+6.1f%% |", score.point.prompt_tokens,
                      score.point.output_tokens, score.point.tp_size, score.running,
                      score.point.output_tokens_per_s, score.predicted.output_tokens_per_s,
                      100 * score.error),
      absl::StrFormat(" %3.0f%% %3.0f%% %3.0f%% %3.0f%% %3.0f%% %3.0f%%%s\n", spent.products / percent,
                      spent.cache / percent, spent.attention / percent, spent.elementwise / percent,
                      spent.all_reduce / percent, (spent.head + spent.overhead + spent.skew) / percent,
                      score.point.held_out ? "  held out" : ""));
}

std::string assumptions_text(const SweepConditions& conditions) {
  std::string text =
      "assumed; no figure is fitted to these points, but what the arithmetic counts (tiles, prompts in "
      "chunks) "
      "was\nchosen with a look at those that are not held out:\n";
  for (const std::string& line : describe(conditions.fractions)) absl::StrAppend(&text, "  ", line, "\n");
  return absl::StrCat(
      text,
      absl::StrFormat(
          "  %d tokens in a step, %d sequences at once at most, KV cache %.0f %% of what the weights "
          "leave, no eviction: the published runs' settings\n",
          conditions.max_step_tokens, conditions.max_running, 100 * conditions.kv_share),
      "  prompts in chunks among the decodes; the least of NCCL's and custom published all-reduce curves\n");
}

}  // namespace

std::string score_text(const std::vector<PointScore>& scores, const SweepConditions& conditions) {
  std::string text = absl::StrFormat(
      "%6s %6s %3s %8s | %10s %10s %7s | %s\n", "prompt", "output", "TP", "at once", "published", "predicted",
      "error", "time by part: products, cache, attention, elementwise, all-reduce, rest");
  for (const PointScore& score : scores) absl::StrAppend(&text, point_line(score));
  const Summary summary = summarize(scores);
  absl::StrAppend(
      &text, absl::StrFormat("\nmedian absolute error %.1f %% over %d points, mean error %+.1f %%, worst "
                             "%+.1f %%",
                             100 * median_absolute(summary.all), summary.all.size(), 100 * summary.mean,
                             100 * summary.worst));
  if (!summary.held_out.empty()) {
    absl::StrAppend(&text, absl::StrFormat("; %.1f %% over the %d held out",
                                           100 * median_absolute(summary.held_out), summary.held_out.size()));
  }
  return absl::StrCat(text, "\n", assumptions_text(conditions));
}

nlohmann::json score_json(const std::vector<PointScore>& scores) {
  const Summary summary = summarize(scores);
  nlohmann::json json{{"kind", "score"},
                      {"median_absolute_error", median_absolute(summary.all)},
                      {"median_absolute_error_held_out", nullptr},
                      {"mean_error", summary.mean},
                      {"worst_error", summary.worst},
                      {"points", nlohmann::json::array()}};
  if (!summary.held_out.empty()) json["median_absolute_error_held_out"] = median_absolute(summary.held_out);
  for (const PointScore& score : scores) {
    json["points"].push_back({{"prompt_tokens", score.point.prompt_tokens},
                              {"output_tokens", score.point.output_tokens},
                              {"tensor_parallel_size", score.point.tp_size},
                              {"published_tokens_per_s", score.point.output_tokens_per_s},
                              {"predicted_tokens_per_s", score.predicted.output_tokens_per_s},
                              {"sequences_at_once", score.running},
                              {"held_out", score.point.held_out},
                              {"error", score.error}});
  }
  return json;
}

}  // namespace trireme::client
