// trireme project: tensor parallelism that nobody has measured, from shards that somebody has; and what such
// arithmetic is worth, against throughput that others published.

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/plan/csv_table.h"
#include "engine/plan/projection.h"
#include "engine/plan/sweep_score.h"
#include "launch/client/commands.h"
#include "launch/client/plan_measurements.h"
#include "launch/client/plan_score.h"
#include "launch/client/scaling_tables.h"
#include "nlohmann/json.hpp"

namespace trireme::client {
namespace {

// Published curves are of other machines, within 10 % of their own points.
constexpr double kPublishedUncertainty = 0.10;

constexpr char kProjectJsonHelp[] =
    "--json of a projection: {kind: \"projection\", projected: true, model (null: not told), backend, "
    "compute_dtype, skew, all_reduce: [{num_ranks, from, uncertainty}], points: [{tensor_parallel_size, "
    "batch, "
    "projected (false: size 1, measured), shard_step_ms, all_reduce_ms, step_ms, tokens_per_s, "
    "base_tensor_parallel_size, efficiency, prefill_efficiency (null: not measured)}]}, where what may be "
    "off is "
    "{low, central, high}. --json of --score: {kind: \"score\", median_absolute_error, "
    "median_absolute_error_held_out, mean_error, worst_error, points: [{prompt_tokens, output_tokens, "
    "tensor_parallel_size, published_tokens_per_s, predicted_tokens_per_s, sequences_at_once, held_out, "
    "error}]}, "
    "errors as predicted / published - 1.";

struct Flags {
  std::vector<std::string> measured, collectives;
  std::string gpu, score, model_name = "Llama-3.1-70B", dtype = "fp8", kv_dtype = "fp8", choice = "nccl";
  std::string gpu_table, model_table, all_reduce_table;
  int devices_per_host = 8;
  bool json = false;
};

int fail(const absl::Status& status) {
  std::cerr << "trireme project: " << status.message() << "\n";
  return status.code() == absl::StatusCode::kInternal ? kExitFailed : kExitInvalid;
}

nlohmann::json to_json(const Range& range) {
  return {{"low", range.low}, {"central", range.central}, {"high", range.high}};
}

nlohmann::json to_json(const ProjectedPoint& point) {
  return {{"tensor_parallel_size", point.tp_size},
          {"batch", point.batch},
          {"projected", point.tp_size > 1},
          {"shard_step_ms", point.shard_ms},
          {"all_reduce_ms", to_json(point.all_reduce_ms)},
          {"step_ms", to_json(point.step_ms)},
          {"tokens_per_s", to_json(point.tokens_per_s)},
          {"base_tensor_parallel_size", point.base_tp_size},
          {"efficiency", to_json(point.efficiency)},
          {"prefill_efficiency", point.prefill_efficiency.central > 0 ? to_json(point.prefill_efficiency)
                                                                      : nlohmann::json(nullptr)}};
}

std::string percent(const Range& range) {
  if (range.central <= 0) return "-";
  return absl::StrFormat("%.0f %% (%.0f to %.0f)", 100 * range.central, 100 * range.low, 100 * range.high);
}

void print_projection(const ShardMeasurements& measured, const std::vector<ProjectedPoint>& points,
                      const std::map<int, CollectiveEstimate>& collectives) {
  std::printf(
      "PROJECTED, not measured: shards timed one by one (%s, %s), plus sums between ranks that did not "
      "take place\n\n",
      measured.backend.c_str(), measured.compute_dtype.c_str());
  std::printf("%6s %5s %-10s %10s %22s %26s %24s %24s\n", "batch", "TP", "", "shard ms", "all-reduce ms",
              "step ms", "efficiency", "prefill efficiency");
  for (const ProjectedPoint& point : points) {
    std::printf(
        "%6d %5d %-10s %10.3f %22s %26s %24s %24s\n", point.batch, point.tp_size,
        point.tp_size > 1 ? "projected" : "measured", point.shard_ms,
        absl::StrFormat("%.3f (%.3f to %.3f)", point.all_reduce_ms.central, point.all_reduce_ms.low,
                        point.all_reduce_ms.high)
            .c_str(),
        absl::StrFormat("%.3f (%.3f to %.3f)", point.step_ms.central, point.step_ms.low, point.step_ms.high)
            .c_str(),
        percent(point.efficiency).c_str(), percent(point.prefill_efficiency).c_str());
  }
  std::printf(
      "\nefficiency: speed over that of the smallest size measured at the batch, per device\nassumed:\n");
  std::printf("  ranks that do not end together, head and host: %.0f %% of a step (%.0f to %.0f)\n",
              100 * kTensorParallelSkew.central, 100 * kTensorParallelSkew.low,
              100 * kTensorParallelSkew.high);
  std::printf("  slowest case: the shard's 99th percentile in every step\n");
  for (const auto& [ranks, estimate] : collectives) {
    std::printf("  all-reduce among %d: %s, within %.0f %%\n", ranks, estimate.cost.origin().c_str(),
                100 * estimate.uncertainty);
  }
}

int run_projection(const Flags& flags, const ScalingTables& tables) {
  ShardMeasurements measured;
  for (const std::string& path : flags.measured) {
    if (absl::Status read = read_shard_file(path, measured); !read.ok()) return fail(read);
  }
  std::map<int, CollectiveEstimate> collectives;
  for (const std::string& path : flags.collectives) {
    if (absl::Status read = read_collective_file(path, collectives); !read.ok()) return fail(read);
  }
  if (!flags.gpu.empty()) {
    auto gpu = tables.gpus.find(flags.gpu);
    if (!gpu.ok()) return fail(gpu.status());
    const auto choice = flags.choice == "best" ? AllReduceChoice::best : AllReduceChoice::nccl;
    for (const ShardTime& shard : measured.shards) {
      if (shard.tp_size == 1 || collectives.contains(shard.tp_size)) continue;
      collectives[shard.tp_size] = {
          tables.all_reduce.cost(*gpu, shard.tp_size, flags.devices_per_host, choice), kPublishedUncertainty};
    }
  }
  auto points = project(measured.shards, measured.run, collectives);
  if (!points.ok()) {
    return fail(absl::InvalidArgumentError(
        absl::StrCat(std::string(points.status().message()),
                     "; --collectives takes measurements, --gpu published curves")));
  }
  if (!flags.json) {
    print_projection(measured, *points, collectives);
    return kExitOk;
  }
  nlohmann::json json{
      {"kind", "projection"},
      {"model", measured.model.empty() ? nlohmann::json(nullptr) : nlohmann::json(measured.model)},
      {"projected", true},
      {"backend", measured.backend},
      {"compute_dtype", measured.compute_dtype},
      {"skew", to_json(kTensorParallelSkew)},
      {"points", nlohmann::json::array()},
      {"all_reduce", nlohmann::json::array()}};
  for (const ProjectedPoint& point : *points) json["points"].push_back(to_json(point));
  for (const auto& [ranks, estimate] : collectives) {
    json["all_reduce"].push_back(
        {{"num_ranks", ranks}, {"from", estimate.cost.origin()}, {"uncertainty", estimate.uncertainty}});
  }
  std::cout << json.dump(2) << "\n";
  return kExitOk;
}

absl::StatusOr<SweepConditions> conditions_of(const Flags& flags, const ScalingTables& tables) {
  SweepConditions conditions;
  auto model = tables.models.find(flags.model_name);
  if (!model.ok()) return model.status();
  auto gpu = tables.gpus.find(flags.gpu.empty() ? "H200" : flags.gpu);
  if (!gpu.ok()) return gpu.status();
  auto weights = parse_number_format(flags.dtype, "--dtype");
  if (!weights.ok()) return weights.status();
  auto cache = parse_number_format(flags.kv_dtype, "--kv-dtype");
  if (!cache.ok()) return cache.status();
  conditions.model = *std::move(model);
  conditions.gpu = *std::move(gpu);
  conditions.weights = *std::move(weights);
  conditions.cache = *std::move(cache);
  return conditions;
}

int run_score(const Flags& flags, const ScalingTables& tables) {
  auto text = read_table_file(flags.score);
  if (!text.ok()) return fail(text.status());
  auto points = parse_sweep(*text, flags.score);
  if (!points.ok()) return fail(points.status());
  auto conditions = conditions_of(flags, tables);
  if (!conditions.ok()) return fail(conditions.status());
  auto scores = score_sweep(*points, *conditions, tables.all_reduce);
  if (!scores.ok()) return fail(scores.status());
  if (flags.json) {
    std::cout << score_json(*scores).dump(2) << "\n";
    return kExitOk;
  }
  std::printf("PREDICTED, not measured: %s, weights %s, KV cache %s, on %s, against %s\n\n%s",
              conditions->model.shape.name.c_str(), flags.dtype.c_str(), flags.kv_dtype.c_str(),
              conditions->gpu.name.c_str(), flags.score.c_str(), score_text(*scores, *conditions).c_str());
  return kExitOk;
}

int run(const Flags& flags) {
  if (flags.measured.empty() == flags.score.empty()) {
    return fail(absl::InvalidArgumentError("give --measured or --score"));
  }
  auto tables = load_scaling_tables(flags.gpu_table, flags.model_table, flags.all_reduce_table);
  if (!tables.ok()) return fail(tables.status());
  return flags.score.empty() ? run_projection(flags, *tables) : run_score(flags, *tables);
}

}  // namespace

void add_project_command(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand(
      "project",
      "Tensor parallelism on devices that are not at hand, from shards measured one by one and the cost "
      "of the sums between them; or how well such arithmetic meets published throughput");
  auto flags = std::make_shared<Flags>();
  command
      ->add_option(
          "--measured", flags->measured,
          "what `trireme bench engine --shard 0/N --json` printed; one file for each N, size 1 without "
          "--shard")
      ->delimiter(',');
  command
      ->add_option("--collectives", flags->collectives,
                   "what `trireme bench collectives --json` printed; one file for each number of ranks")
      ->delimiter(',');
  command->add_option("--gpu", flags->gpu,
                      "where --collectives has no file: published curves or the link of this device "
                      "(--score: the device, H200)");
  command->add_option("--all-reduce", flags->choice, "of those curves; nccl, or best: custom kernels too")
      ->check(CLI::IsMember({"nccl", "best"}))
      ->capture_default_str();
  command->add_option("--devices-per-host", flags->devices_per_host)
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  command->add_option("--score", flags->score,
                      "CSV of published throughput, like launch/scaling/h200_llama70b_fp8.csv");
  command->add_option("--model-name", flags->model_name, "of --score")->capture_default_str();
  command->add_option("--dtype", flags->dtype, "of --score")->capture_default_str();
  command->add_option("--kv-dtype", flags->kv_dtype, "of --score")->capture_default_str();
  command->add_option("--gpu-table", flags->gpu_table, "as for `trireme plan`");
  command->add_option("--model-table", flags->model_table, "as for `trireme plan`");
  command->add_option("--all-reduce-table", flags->all_reduce_table, "as for `trireme plan`");
  command->add_flag("--json", flags->json);
  command->footer(kProjectJsonHelp);
  command->callback([flags, &exit_code] { exit_code = run(*flags); });
}

}  // namespace trireme::client
