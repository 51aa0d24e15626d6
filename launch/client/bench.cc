// trireme bench engine: speed of the engine alone, beside what the machine allows.

#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_format.h"
#include "engine/backend_choice.h"
#include "engine/config.h"
#include "engine/loading.h"
#include "launch/client/commands.h"
#include "launch/client/engine_bench.h"
#include "launch/client/engine_bench_overhead.h"
#include "launch/client/engine_bench_scenarios.h"

namespace trireme::client {
namespace {

struct Flags {
  std::string model_dir, model_config, load_format = "auto", shard, scenario = "batches";
  bool json = false;
  EngineBenchOptions bench;
  ScenarioOptions scenarios;
};

int fail(const absl::Status& status) {
  std::fprintf(stderr, "trireme bench engine: %s\n", std::string(status.message()).c_str());
  return status.code() == absl::StatusCode::kInvalidArgument || status.code() == absl::StatusCode::kNotFound
             ? kExitInvalid
             : kExitFailed;
}

absl::Status complete(Flags& flags) {
  EngineConfig& engine = flags.bench.engine;
  engine.dummy_weights = flags.load_format == "dummy";
  if (flags.model_dir.empty() == flags.model_config.empty()) {
    return absl::InvalidArgumentError("give one of --model and --model-config");
  }
  if (!flags.model_config.empty() && !engine.dummy_weights) {
    return absl::InvalidArgumentError("--model-config has no weights: add --load-format dummy");
  }
  engine.model_dir = flags.model_dir;
  const std::string path = flags.model_dir.empty() ? flags.model_config : flags.model_dir + "/config.json";
  auto model = load_model_config(path);
  if (!model.ok()) return model.status();
  engine.model = *std::move(model);
  if (!flags.shard.empty()) {
    char end = 0;
    if (std::sscanf(flags.shard.c_str(), "%d/%d%c", &engine.shard_rank, &engine.shard_size, &end) != 2 ||
        engine.shard_size < 1 || engine.shard_rank < 0 || engine.shard_rank >= engine.shard_size) {
      return absl::InvalidArgumentError(
          absl::StrFormat("--shard: got '%s', wanted RANK/SIZE, e.g. 3/8", flags.shard));
    }
  }
  if (flags.scenario != "batches") return absl::OkStatus();  // the scenarios set the rest themselves
  if (!flags.bench.trace_file.empty()) engine.trace_steps = flags.bench.trace_steps;
  engine.enable_prefix_cache = false;  // every prompt is to be computed
  const int most = *std::max_element(flags.bench.batches.begin(), flags.bench.batches.end());
  engine.max_num_seqs = most;
  engine.max_step_tokens = std::max(engine.max_step_tokens, most);
  const auto& prompts = flags.bench.prompt_tokens;
  if (engine.max_context_len == 0) {
    // The scheduler leaves each sequence a block to grow into, wanted or not.
    const int needed = *std::max_element(prompts.begin(), prompts.end()) + flags.bench.output_tokens;
    const int roomy = std::min(longest_context(engine.model), needed + engine.block_size);
    engine.max_context_len = std::max(needed, roomy);
  }
  return absl::OkStatus();
}

nlohmann::json to_json(const EngineBenchReport& report) {
  nlohmann::json json{{"backend", report.backend},
                      {"compute_dtype", report.compute_dtype},
                      {"tensor_parallel_size", report.tp_size},
                      {"threads_per_rank", report.threads},
                      {"load_seconds", report.load_seconds},
                      {"memory_ceiling", report.memory_name},
                      {"product_ceiling", report.product_name},
                      {"read_gb_s", report.read_gb_s},
                      {"product_rows", report.product_rows},
                      {"product_gflop_s", report.product_gflop_s},
                      {"resident_bytes", report.resident_bytes},
                      {"read_bytes", report.ledger.read_bytes},
                      {"notes", report.notes}};
  for (const LedgerLine& line : report.ledger.lines) {
    json["ledger"][line.kind] = {{"predicted_bytes", line.predicted}, {"measured_bytes", line.measured}};
  }
  for (const auto& [phase, milliseconds] : report.phases_ms) json["phases_ms"][phase] = milliseconds;
  for (const BatchFigures& row : report.batches) {
    nlohmann::json phases;
    for (const auto& [phase, milliseconds] : row.decode_phases_ms) phases[phase] = milliseconds;
    json["batches"].push_back({{"batch", row.batch},
                               {"prompt_tokens", row.prompt_tokens},
                               {"prefill_tokens_per_s", row.prefill_tokens_per_s},
                               {"prefill_gflop_s", row.prefill_gflop_s},
                               {"prefill_fraction_of_product_rate", row.prefill_fraction},
                               {"decode_tokens_per_s", row.decode_tokens_per_s},
                               {"decode_step_ms", row.decode_step_ms},
                               {"decode_step_ms_p99", row.decode_step_ms_p99},
                               {"decode_gb_s", row.decode_gb_s},
                               {"decode_fraction_of_read_bandwidth", row.decode_bandwidth_fraction},
                               {"decode_fraction_of_onednn_rows", row.decode_rows_fraction},
                               {"decode_speedup", row.decode_speedup},
                               {"limit", row.limit},
                               {"ceiling_tokens_per_s", row.ceiling_tokens_per_s},
                               {"decode_phases_ms", phases},
                               {"decode_host_fraction", row.decode_host_fraction},
                               {"decode_unaccounted_fraction", row.decode_unaccounted_fraction}});
  }
  for (const LeftOut& row : report.left_out) {
    json["left_out"].push_back({{"batch", row.batch},
                                {"prompt_tokens", row.prompt_tokens},
                                {"wanted_tokens", row.wanted_tokens},
                                {"cache_tokens", row.cache_tokens}});
  }
  return json;
}

/// What was measured, as far as `trireme project` needs it.
nlohmann::json workload_json(const Flags& flags) {
  const EngineConfig& engine = flags.bench.engine;
  const std::vector<int>& prompts = flags.bench.prompt_tokens;
  return {{"model", flags.model_dir.empty() ? flags.model_config : flags.model_dir},
          {"num_layers", engine.model.num_layers},
          {"hidden_size", engine.model.hidden_size},
          {"prompt_tokens", prompts.size() == 1 ? nlohmann::json(prompts[0]) : nlohmann::json(prompts)},
          {"output_tokens", flags.bench.output_tokens},
          {"max_step_tokens", engine.max_step_tokens},
          {"shard_rank", engine.shard_rank},
          {"shard_size", engine.shard_size}};  // 0: no shard alone
}

void print_table(const EngineBenchReport& report) {
  for (const std::string& note : report.notes) std::printf("note: %s\n", note.c_str());
  std::printf("%s", report.ledger.to_text().c_str());
  std::printf("%s, %s, tensor-parallel size %d, %d threads per rank, loaded in %.2f s\n",
              report.backend.c_str(), report.compute_dtype.c_str(), report.tp_size, report.threads,
              report.load_seconds);
  const std::string of_memory = "of " + report.memory_name, of_library = "of " + report.product_name;
  const std::string rows = absl::StrFormat("%d rows", report.product_rows);
  std::printf("ceilings, all ranks: %s %.1f GB/s; %s with %s %.0f GFLOP/s\n\n", report.memory_name.c_str(),
              report.read_gb_s, report.product_name.c_str(), rows.c_str(), report.product_gflop_s);
  std::printf("%6s %7s | %10s %9s %11s | %10s %9s %9s %7s %8s %11s\n", "batch", "prompt", "prefill",
              "GFLOP/s", of_library.c_str(), "decode", "step", "p99", "GB/s", of_memory.c_str(),
              of_library.c_str());
  std::printf("%6s %7s | %10s %9s %11s | %10s %9s %9s %7s %8s %11s\n", "", "tokens", "tokens/s", "",
              rows.c_str(), "tokens/s", "ms", "ms", "", "", "same rows");
  for (const BatchFigures& row : report.batches) {
    std::printf("%6d %7d | %10.1f %9.0f %11.2f | %10.2f %9.2f %9.2f %7.1f %8.2f %11.2f\n", row.batch,
                row.prompt_tokens, row.prefill_tokens_per_s, row.prefill_gflop_s, row.prefill_fraction,
                row.decode_tokens_per_s, row.decode_step_ms, row.decode_step_ms_p99, row.decode_gb_s,
                row.decode_bandwidth_fraction, row.decode_rows_fraction);
  }
  for (const LeftOut& row : report.left_out) {
    std::printf("%6d %7d | left out: %s tokens, the KV cache holds %s\n", row.batch, row.prompt_tokens,
                std::to_string(row.wanted_tokens).c_str(), std::to_string(row.cache_tokens).c_str());
  }
  std::printf("\nof a decode step: %s\n%6s %7s %10s %10s %9s %9s  %s\n",
              "what binds it, what that allows, and where rank 0's time goes (host: all but computing and "
              "communicating)",
              "batch", "prompt", "tokens/s", "allowed", "of first", "host", "ms by phase");
  for (const BatchFigures& row : report.batches) {
    std::printf("%6d %7d %10.2f %10.2f %9.2f %8.2f%%  %s binds;", row.batch, row.prompt_tokens,
                row.decode_tokens_per_s, row.ceiling_tokens_per_s, row.decode_speedup,
                100 * row.decode_host_fraction, row.limit.c_str());
    for (const auto& [phase, milliseconds] : row.decode_phases_ms)
      std::printf(" %s %.3f", phase.c_str(), milliseconds);
    std::printf("\n");
  }
  std::printf("\ntime of rank 0:");
  for (const auto& [phase, milliseconds] : report.phases_ms)
    std::printf(" %s %.0f ms;", phase.c_str(), milliseconds);
  std::printf("\n");
}

int run_scenario(const Flags& flags, HostGroup& world) {
  ScenarioOptions options = flags.scenarios;
  options.engine = flags.bench.engine;
  options.repeats = flags.bench.repeats;
  std::string text;
  nlohmann::json json;
  if (flags.scenario == "prefix") {
    auto report = run_prefix_scenario(options, world);
    if (!report.ok()) return fail(report.status());
    text = report->to_text();
    json = report->to_json();
  } else if (flags.scenario == "timelines") {
    OverheadOptions overhead{options.engine, options.repeats, options.streams};
    if (!flags.bench.trace_file.empty()) overhead.engine.trace_steps = flags.bench.trace_steps;
    auto report = run_overhead_scenario(overhead, world);
    if (!report.ok()) return fail(report.status());
    text = report->to_text();
    json = report->to_json();
  } else {
    auto report = run_chunked_scenario(options, world);
    if (!report.ok()) return fail(report.status());
    text = report->to_text();
    json = report->to_json();
  }
  if (world.rank() == 0) std::printf("%s\n", flags.json ? json.dump(2).c_str() : text.c_str());
  return kExitOk;
}

int run(Flags& flags) {
  auto world = create_world(nullptr, nullptr);
  if (!world.ok()) return fail(world.status());
  if (absl::Status status = complete(flags); !status.ok()) return fail(status);
  EngineConfig& engine = flags.bench.engine;
  const auto seen =
      agree_on_placement(**world, engine.backend, engine.collectives, engine.device, engine.load_timeout);
  if (!seen.ok()) return fail(seen.status());
  engine.placement = *seen;
  if (flags.scenario != "batches") return run_scenario(flags, **world);
  auto report = run_engine_bench(flags.bench, **world);
  if (!report.ok()) return fail(report.status());
  if ((*world)->rank() != 0) return kExitOk;
  if (flags.json) {
    nlohmann::json json = to_json(*report);
    json["workload"] = workload_json(flags);
    std::printf("%s\n", json.dump(2).c_str());
  } else {
    print_table(*report);
  }
  return kExitOk;
}

}  // namespace

void add_bench_command(CLI::App& app, int& exit_code) {
  CLI::App* bench = app.add_subcommand("bench", "Measures speed");
  bench->require_subcommand(1);
  add_serve_bench_command(*bench, exit_code);
  add_collective_bench_command(*bench, exit_code);
  CLI::App* command = bench->add_subcommand(
      "engine",
      "The engine alone, no service: prefill and decode beside the device's bandwidth and its library's "
      "product rate, "
      "measured between the repeats since machines drift. Under mpirun the ranks share the model.");
  auto flags = std::make_shared<Flags>();
  EngineBenchOptions& options = flags->bench;
  command->add_option("--model", flags->model_dir, "Hugging Face directory");
  command->add_option("--model-config", flags->model_config, "a config.json alone, with --load-format dummy");
  command->add_option("--load-format", flags->load_format, "auto: read the weights; dummy: draw them")
      ->check(CLI::IsMember({"auto", "dummy"}))
      ->capture_default_str();
  command->add_option("--backend", options.engine.backend, "auto: the GPU if it can be used, else the CPU")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  command
      ->add_option("--device", options.engine.device,
                   "GPU of this host's first rank; the others take those after it, and share them, all in "
                   "turn, where they are too few")
      ->check(CLI::Range(0, 1023))
      ->capture_default_str();
  command
      ->add_option(
          "--collectives", options.engine.collectives,
          "between the ranks; auto: nccl where each has a GPU, else mpi, which takes the tensors of a "
          "GPU over host memory and lets ranks share one")
      ->check(CLI::IsMember({"auto", "nccl", "mpi"}))
      ->capture_default_str();
  command->add_option("--compute-dtype", options.engine.compute_dtype)
      ->check(CLI::IsMember({"auto", "f32", "bf16", "f16"}))
      ->capture_default_str();
  command->add_option("--threads", options.engine.num_threads, "per rank; 0: all cores")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  command->add_option("--batch", options.batches, "sequences at once, e.g. 1,8")
      ->delimiter(',')
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  command
      ->add_option("--prompt-tokens", options.prompt_tokens,
                   "of each sequence, e.g. 512,4096,32768: a table of each with every --batch; those that "
                   "the KV cache does not hold are left out, and listed")
      ->delimiter(',')
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command->add_option("--output-tokens", options.output_tokens)
      ->check(CLI::Range(2, 1 << 20))
      ->capture_default_str();
  command->add_option("--max-step-tokens", options.engine.max_step_tokens)
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  command->add_option("--repeats", options.repeats)->check(CLI::Range(1, 1000))->capture_default_str();
  command->add_option("--shard", flags->shard,
                      "RANK/SIZE: load and time this rank's part alone, communication replaced by nothing");
  command
      ->add_option(
          "--scenario", flags->scenario,
          "batches: the speed of each --batch; prefix: time to first token with nine tenths of the prompt "
          "cached, beside a cold one; chunked: inter-token times of streams while a long prompt "
          "arrives; timelines: what the accounting of each rank's time costs, steps with and without it in "
          "turns")
      ->check(CLI::IsMember({"batches", "prefix", "chunked", "timelines"}))
      ->capture_default_str();
  command->add_option("--prefix-tokens", flags->scenarios.prefix_prompt_tokens, "prompt of scenario prefix")
      ->check(CLI::Range(20, 1 << 20))
      ->capture_default_str();
  command->add_option("--streams", flags->scenarios.streams, "that decode in scenarios chunked and timelines")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  command->add_option("--long-tokens", flags->scenarios.long_prompt_tokens, "prompt of scenario chunked")
      ->check(CLI::Range(2, 1 << 20))
      ->capture_default_str();
  command->add_option("--trace", options.trace_file,
                      "file to write in scenario batches: what every rank did in the last steps, for "
                      "https://ui.perfetto.dev (tid: rank); in scenario timelines its cost counts, too");
  command->add_option("--trace-steps", options.trace_steps, "steps that are kept in memory for --trace")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  command->add_flag("--json", flags->json);
  command->callback([flags, &exit_code] { exit_code = run(*flags); });
}

}  // namespace trireme::client
