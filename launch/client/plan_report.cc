#include "launch/client/plan_report.h"

#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "engine/plan/byte_ledger.h"

namespace trireme::client {
namespace {

double gib(int64_t bytes) { return static_cast<double>(bytes) / (int64_t{1} << 30); }

std::string layout_name(const LayoutEstimate& layout) {
  return absl::StrFormat("TP%d x DP%d", layout.tp_size, layout.replicas);
}

std::string price_text(double usd) { return usd > 0 ? absl::StrFormat("%.2f", usd) : "-"; }

std::string layout_line(const LayoutEstimate& layout) {
  const std::string head =
      absl::StrFormat("%7d  %-11s %c", layout.devices, layout_name(layout), layout.best ? '*' : ' ');
  if (!layout.refused.empty()) return absl::StrCat(head, " refused: ", layout.refused, "\n");
  return absl::StrCat(
      head,
      absl::StrFormat(" %8.1f %8.1f %8.1f %7d | %8.1f %8.1f | %6d %8.1f %9.0f %8.1f | %9.0f %9s\n",
                      gib(layout.bytes.weights), gib(layout.bytes.beside_weights()),
                      gib(layout.kv_cache_bytes), layout.largest_batch, layout.latency.user_tokens_per_s,
                      layout.ttft_ms, layout.throughput.batch, layout.throughput.user_tokens_per_s,
                      layout.throughput.total_tokens_per_s, layout.all_reduce_us, layout.prefill_tokens_per_s,
                      price_text(layout.throughput.usd_per_million_tokens)));
}

nlohmann::json step_json(const StepCost& step) {
  return {{"products", 1e3 * step.products},       {"head", 1e3 * step.head},
          {"kv_cache", 1e3 * step.cache},          {"attention", 1e3 * step.attention},
          {"elementwise", 1e3 * step.elementwise}, {"all_reduce", 1e3 * step.all_reduce},
          {"overhead", 1e3 * step.overhead},       {"skew", 1e3 * step.skew}};
}

nlohmann::json price_json(double usd) { return usd > 0 ? nlohmann::json(usd) : nlohmann::json(nullptr); }

nlohmann::json decode_json(const DecodeEstimate& decode) {
  return {{"batch_per_replica", decode.batch},
          {"step_ms", 1e3 * decode.step.total()},
          {"step_parts_ms", step_json(decode.step)},
          {"tokens_per_s_per_user", decode.user_tokens_per_s},
          {"tokens_per_s_total", decode.total_tokens_per_s},
          {"usd_per_million_output_tokens", price_json(decode.usd_per_million_tokens)}};
}

nlohmann::json layout_json(const LayoutEstimate& layout) {
  nlohmann::json json{
      {"devices", layout.devices},
      {"tensor_parallel_size", layout.tp_size},
      {"replicas", layout.replicas},
      {"fits", layout.refused.empty()},
      {"refused", layout.refused.empty() ? nlohmann::json(nullptr) : nlohmann::json(layout.refused)},
      {"best_of_device_count", layout.best},
      {"usable_memory_bytes_per_device", layout.memory_bytes}};
  if (layout.weight_bytes_all > 0) {  // it can be cut
    json["weight_bytes_per_replica"] = layout.weight_bytes_all;
    json["bytes_per_rank"] = {{"weights", layout.bytes.weights},
                              {"kv_cache", layout.kv_cache_bytes},
                              {"kv_cache_per_token", layout.bytes.kv_per_token},
                              {"state_per_sequence", layout.bytes.state_per_sequence},
                              {"activations", layout.bytes.activations},
                              {"token_counts", layout.bytes.token_counts},
                              {"context", layout.bytes.device.context},
                              {"workspace", layout.bytes.device.workspace},
                              {"decode_graphs", layout.bytes.device.graphs},
                              {"communicator", layout.bytes.device.communicator}};
    json["largest_batch_per_replica"] = layout.largest_batch;
  }
  if (!layout.refused.empty()) return json;
  json["latency"] = decode_json(layout.latency);
  json["throughput"] = decode_json(layout.throughput);
  json["prefill_tokens_per_s"] = layout.prefill_tokens_per_s;
  json["ttft_ms"] = layout.ttft_ms;
  json["all_reduce_us"] = layout.all_reduce_us;
  json["all_reduce_from"] = layout.all_reduce_origin;
  return json;
}

/// What rank 0 of a layout holds, by kind.
std::string bytes_line(const LayoutEstimate& layout) {
  std::vector<std::string> kinds;
  for (const LedgerLine& line : predicted_lines(layout.bytes, layout.kv_cache_bytes))
    kinds.push_back(absl::StrFormat("%s %.2f", line.kind, gib(line.predicted)));
  return absl::StrCat("its rank 0, GiB: ", absl::StrJoin(kinds, ", "), "\n");
}

std::string best_line(const PlanReport& report) {
  if (report.best < 0) return "no layout fits\n";
  const LayoutEstimate& best = report.layouts[static_cast<size_t>(report.best)];
  const bool latency = report.request.target == PlanTarget::latency;
  const std::string line = absl::StrFormat(
      "best for %s: %d device%s as %s, %s\n", latency ? "latency" : "throughput", best.devices,
      best.devices == 1 ? "" : "s", layout_name(best),
      latency
          ? absl::StrFormat("%.1f tokens/s for one user", best.latency.user_tokens_per_s)
          : absl::StrFormat("%.0f tokens/s per device", best.throughput.total_tokens_per_s / best.devices));
  return absl::StrCat(line, bytes_line(best));
}

}  // namespace

const char kPlanJsonHelp[] =
    "--json FILE (- for standard output): {kind: \"plan\", estimate: true, model: {name, parameters, "
    "max_context}, "
    "gpu: {name, memory_gib, usable_bytes, source}, dtype, kv_dtype, context, prompt_tokens, batch (null: "
    "not "
    "given), target, usd_per_device_hour (null: not known), price_year (null: not the table's), devices, "
    "devices_per_host, "
    "assumptions: [text], notes: [text], best: index into layouts or null, layouts: [{devices, "
    "tensor_parallel_size, replicas, fits, refused (null or the reason), best_of_device_count, "
    "usable_memory_bytes_per_device, weight_bytes_per_replica, bytes_per_rank: {weights, kv_cache, "
    "kv_cache_per_token, state_per_sequence, activations, token_counts, context, workspace, communicator}, "
    "largest_batch_per_replica, latency and throughput: {batch_per_replica, step_ms, step_parts_ms: {...}, "
    "tokens_per_s_per_user, tokens_per_s_total, usd_per_million_output_tokens (null: no price)}, "
    "prefill_tokens_per_s, ttft_ms, all_reduce_us, all_reduce_from}]}. A layout the model cannot be cut for "
    "has "
    "no bytes, a refused one no speed.";

std::string plan_text(const PlanReport& report) {
  const PlanRequest& request = report.request;
  const ModelShape& shape = request.model.shape;
  std::string text = absl::StrFormat(
      "%s (%.2f B parameters), weights %s, KV cache %s, on %s (%.1f GiB, %.1f usable); estimates, nothing "
      "was "
      "measured\nsequences of %d tokens, prompts of %d\n\n",
      shape.name, count_parameters(shape) * 1e-9, request.weights.name, request.cache.name, request.gpu.name,
      request.gpu.memory_gib, gib(request.gpu.usable_bytes()), request.context, request.prompt_tokens);
  absl::StrAppend(
      &text, absl::StrFormat("%7s  %-11s  %8s %8s %8s %7s | %8s %8s | %6s %8s %9s %8s | %9s %9s\n", "", "",
                             "weights", "rest", "KV cache", "largest", "one user", "first", "batch", "tok/s",
                             "tok/s", "all-red.", "prefill", "USD per"));
  absl::StrAppend(
      &text, absl::StrFormat("%7s  %-11s  %8s %8s %8s %7s | %8s %8s | %6s %8s %9s %8s | %9s %9s\n", "devices",
                             "layout", "GiB/rank", "GiB/rank", "GiB/rank", "batch", "tok/s", "token ms",
                             "each", "per user", "total", "us", "tok/s", "M tokens"));
  for (const LayoutEstimate& layout : report.layouts) absl::StrAppend(&text, layout_line(layout));
  absl::StrAppend(&text, "* best of its device count\n\n", best_line(report));
  if (request.usd_per_device_hour > 0) {
    absl::StrAppend(
        &text,
        absl::StrFormat("price: %.2f USD per device and hour%s\n", request.usd_per_device_hour,
                        request.gpu.usd_per_hour == request.usd_per_device_hour && request.gpu.price_year > 0
                            ? absl::StrCat(", a published price of ", request.gpu.price_year)
                            : ""));
  }
  for (const std::string& note : report.notes) absl::StrAppend(&text, "note: ", note, "\n");
  absl::StrAppend(&text, "assumed:\n");
  for (const std::string& line : report.assumptions) absl::StrAppend(&text, "  ", line, "\n");
  std::set<int> told;
  for (const LayoutEstimate& layout : report.layouts) {
    if (layout.all_reduce_origin.empty() || !told.insert(layout.tp_size).second) continue;
    absl::StrAppend(&text, "  all-reduce at TP", layout.tp_size, ": ", layout.all_reduce_origin, "\n");
  }
  return text;
}

nlohmann::json plan_json(const PlanReport& report) {
  const PlanRequest& request = report.request;
  const ModelShape& shape = request.model.shape;
  const bool table_price =
      request.gpu.usd_per_hour == request.usd_per_device_hour && request.gpu.price_year > 0;
  nlohmann::json json{
      {"kind", "plan"},
      {"estimate", true},
      {"model",
       {{"name", shape.name},
        {"parameters", count_parameters(shape)},
        {"max_context", request.model.max_context}}},
      {"gpu",
       {{"name", request.gpu.name},
        {"memory_gib", request.gpu.memory_gib},
        {"usable_bytes", request.gpu.usable_bytes()},
        {"source", request.gpu.source}}},
      {"dtype", request.weights.name},
      {"kv_dtype", request.cache.name},
      {"context", request.context},
      {"prompt_tokens", request.prompt_tokens},
      {"batch", request.batch > 0 ? nlohmann::json(request.batch) : nlohmann::json(nullptr)},
      {"target", request.target == PlanTarget::latency ? "latency" : "throughput"},
      {"usd_per_device_hour", price_json(request.usd_per_device_hour)},
      {"price_year", table_price ? nlohmann::json(request.gpu.price_year) : nlohmann::json(nullptr)},
      {"devices", request.devices},
      {"devices_per_host", request.devices_per_host},
      {"assumptions", report.assumptions},
      {"notes", report.notes},
      {"best", report.best >= 0 ? nlohmann::json(report.best) : nlohmann::json(nullptr)},
      {"layouts", nlohmann::json::array()}};
  for (const LayoutEstimate& layout : report.layouts) json["layouts"].push_back(layout_json(layout));
  return json;
}

}  // namespace trireme::client
