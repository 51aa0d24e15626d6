#include "launch/client/plan_measurements.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/json_document.h"

namespace trireme::client {
namespace {

constexpr uint64_t kMaxFileBytes = 16 << 20;
constexpr double kMostMs = 1e9;
constexpr double kLeastUncertainty = 0.05;

absl::StatusOr<nlohmann::json> read_json(const std::string& path) {
  auto text = read_small_file(path, kMaxFileBytes);
  if (!text.ok()) return text.status();
  return parse_json_object(*text, path);
}

/// The object `name` of `fields`, or a fault and nullptr.
const nlohmann::json* object_of(JsonFields& fields, const std::string& name) {
  const nlohmann::json* found = fields.find(name);
  if (found != nullptr && found->is_object()) return found;
  fields.fail(name, found == nullptr ? "nothing" : describe_json(*found), "an object");
  return nullptr;
}
const nlohmann::json* list_of(JsonFields& fields, const std::string& name) {
  const nlohmann::json* found = fields.find(name);
  if (found != nullptr && found->is_array() && !found->empty()) return found;
  fields.fail(name, found == nullptr ? "nothing" : describe_json(*found), "a list that is not empty");
  return nullptr;
}

absl::StatusOr<ShardRun> read_run(const nlohmann::json& json, const std::string& where, int tp_size,
                                  const std::string& backend, const std::string& dtype) {
  JsonFields fields(json, absl::StrCat(where, ": workload"));
  ShardRun run;
  run.num_layers = static_cast<int>(fields.integer("num_layers", 1, 4096, std::nullopt));
  run.hidden_size = static_cast<int>(fields.integer("hidden_size", 1, 1 << 22, std::nullopt));
  run.prompt_tokens = static_cast<int>(fields.integer("prompt_tokens", 1, 1 << 28, std::nullopt));
  run.max_step_tokens = static_cast<int>(fields.integer("max_step_tokens", 1, 1 << 28, std::nullopt));
  const int64_t shard_size = fields.integer("shard_size", 0, 4096, 0);
  if (tp_size > 1 && shard_size != tp_size) {
    fields.fail(
        "shard_size", absl::StrCat(shard_size),
        absl::StrFormat("%d: a shard measured alone, with --shard RANK/%d; ranks that talked to each other "
                        "need no projection",
                        tp_size, tp_size));
  }
  run.message_element_bytes = backend == "cpu" || dtype == "f32" ? 4 : 2;  // the CPU's activations are f32
  if (!fields.status().ok()) return fields.status();
  return run;
}

absl::Status read_batches(const nlohmann::json& list, const std::string& where, int tp_size,
                          std::vector<ShardTime>& shards) {
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string place = absl::StrCat(where, ": batches[", i, "]");
    if (!list[i].is_object()) return absl::InvalidArgumentError(absl::StrCat(place, ": not an object"));
    JsonFields fields(list[i], place);
    ShardTime shard;
    shard.tp_size = tp_size;
    shard.batch = static_cast<int>(fields.integer("batch", 1, 1 << 20, std::nullopt));
    shard.step_ms = fields.number("decode_step_ms", 1e-6, kMostMs, std::nullopt);
    shard.step_ms_p99 = fields.number("decode_step_ms_p99", 0, kMostMs, 0.0);
    shard.prefill_tokens_per_s = fields.number("prefill_tokens_per_s", 0, 1e12, 0.0);
    if (!fields.status().ok()) return fields.status();
    shards.push_back(shard);
  }
  return absl::OkStatus();
}

bool same_run(const ShardRun& a, const ShardRun& b) {
  return a.num_layers == b.num_layers && a.hidden_size == b.hidden_size &&
         a.prompt_tokens == b.prompt_tokens && a.max_step_tokens == b.max_step_tokens &&
         a.message_element_bytes == b.message_element_bytes;
}

}  // namespace

absl::Status read_shard_file(const std::string& path, ShardMeasurements& measurements) {
  auto json = read_json(path);
  if (!json.ok()) return json.status();
  JsonFields fields(*json, path);
  const std::string backend = fields.text("backend", std::nullopt);
  const std::string dtype = fields.text("compute_dtype", std::nullopt);
  const int tp_size = static_cast<int>(fields.integer("tensor_parallel_size", 1, 4096, std::nullopt));
  const nlohmann::json* workload = object_of(fields, "workload");
  const nlohmann::json* batches = list_of(fields, "batches");
  if (!fields.status().ok()) return fields.status();
  auto run = read_run(*workload, path, tp_size, backend, dtype);
  if (!run.ok()) return run.status();
  const bool first = measurements.shards.empty();
  if (!first && (!same_run(*run, measurements.run) || backend != measurements.backend ||
                 dtype != measurements.compute_dtype)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": another model, workload, backend or dtype than the files before"));
  }
  JsonFields described(*workload, absl::StrCat(path, ": workload"));
  const std::string model = described.text("model", "");
  if (!described.status().ok()) return described.status();
  measurements.run = *run;
  measurements.model = model;
  measurements.backend = backend;
  measurements.compute_dtype = dtype;
  return read_batches(*batches, path, tp_size, measurements.shards);
}

absl::Status read_collective_file(const std::string& path, std::map<int, CollectiveEstimate>& collectives) {
  auto json = read_json(path);
  if (!json.ok()) return json.status();
  JsonFields fields(*json, path);
  const int ranks = static_cast<int>(fields.integer("num_ranks", 2, 4096, std::nullopt));
  const nlohmann::json* operations = list_of(fields, "operations");
  if (!fields.status().ok()) return fields.status();
  const auto all_reduce = std::find_if(operations->begin(), operations->end(), [](const nlohmann::json& one) {
    return one.is_object() && one.contains("op") && one["op"] == "all_reduce";
  });
  if (all_reduce == operations->end()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": operations: none is all_reduce"));
  }
  JsonFields operation(*all_reduce, absl::StrCat(path, ": all_reduce"));
  const nlohmann::json* fit = object_of(operation, "fit");
  if (fit == nullptr) return operation.status();
  JsonFields numbers(*fit, absl::StrCat(path, ": all_reduce: fit"));
  const double alpha_us = numbers.number("alpha_us", 0, kMostMs, std::nullopt);
  const double beta_gb_s = numbers.number("beta_gb_s", 1e-9, 1e9, std::nullopt);
  const double residual = numbers.number("rms_residual", 0, 100, 0.0);
  if (!numbers.status().ok()) return numbers.status();
  CollectiveEstimate estimate;
  estimate.cost = AllReduceCost({AllReduceCurve::line(
      alpha_us * 1e-6, beta_gb_s * 1e9,
      absl::StrFormat("measured: %.2f us + bytes / %.2f GB/s (%s)", alpha_us, beta_gb_s, path))});
  estimate.uncertainty = std::max(residual, kLeastUncertainty);
  if (!collectives.emplace(ranks, std::move(estimate)).second) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": num_ranks: ", ranks, " again"));
  }
  return absl::OkStatus();
}

}  // namespace trireme::client
