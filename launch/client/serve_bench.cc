// trireme bench serve: what clients of a server see under load.

#include <cstdio>
#include <fstream>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "launch/client/commands.h"
#include "launch/client/connection.h"
#include "launch/client/error_report.h"
#include "launch/client/interrupt.h"
#include "launch/client/load_target.h"
#include "launch/client/null_server.h"
#include "launch/client/progress_bar.h"
#include "proto/support/errors.h"

namespace trireme::client {
namespace {

struct Flags {
  ConnectionOptions connection;
  std::string dataset = "random:128,64", goodput, json_file;
  size_t num_requests = 100;
  int concurrency = 0, num_connections = 0;
  LoadPlan plan;
  float temperature = 0;
  bool strict = false, no_null = false;
};

int fail(const std::string& text, int code) {
  std::fprintf(stderr, "trireme bench serve: %s\n", text.c_str());
  return code;
}

int fail(const absl::Status& status) {
  return fail(std::string(status.message()), exit_code_for(rpc::to_grpc(status)));
}

/// What the same load meets where there is no server to speak of: the most this side can do, and what it
/// adds to every time.
struct NullFigures {
  double requests_per_s = 0, tokens_per_s = 0;
  Distribution ttft_ms, itl_ms;
};

absl::StatusOr<NullFigures> measure_null(const CallOptions& options, const LoadPlan& plan, int32_t tokens) {
  constexpr size_t kTokens = 20'000;  // well under a second
  auto server = NullServer::start();
  if (!server.ok()) return server.status();
  GrpcLoadTarget target((*server)->address(), options);
  v1::GetModelResponse model;
  if (const grpc::Status status = target.connect(model); !status.ok()) return rpc::from_grpc(status);
  WorkItem item;
  item.prompt_ids = {1};
  item.output_tokens = std::max(tokens, 1);
  const size_t count = std::max(kTokens / static_cast<size_t>(item.output_tokens), size_t{16});
  const std::vector<WorkItem> items(count, item);
  LoadPlan closed = plan;
  closed.rate = 0;
  if (plan.rate > 0) closed.concurrency = 16;
  SteadyLoadClock clock;
  const LoadReport report = summarize(LoadRun(items, closed, target, clock).run(), {});
  if (report.ok != report.requests) return absl::InternalError("the null server refused requests");
  return NullFigures{report.requests_per_s(), report.output_tokens_per_s(), report.ttft_ms, report.itl_ms};
}

class ServeBench {
 public:
  explicit ServeBench(Flags& flags) : flags_(flags) {}

  int run() {
    if (!flags_.goodput.empty()) {
      auto targets = parse_goodput(flags_.goodput);
      if (!targets.ok()) return fail(targets.status());
      targets_ = *targets;
    }
    auto spec = parse_dataset(flags_.dataset);
    if (!spec.ok()) return fail(spec.status());
    set_plan();
    GrpcLoadTarget target(flags_.connection.address, call_);
    if (const grpc::Status status = target.connect(model_); !status.ok())
      return report_error(status, flags_.connection.address);
    auto items = make_items(*spec, target);
    if (!items.ok()) return fail(items.status());
    if (!flags_.no_null) {
      auto null = measure_null(call_, flags_.plan, items->front().output_tokens);
      if (!null.ok()) return fail(null.status());
      null_ = *null;
    }
    measure(*items, target);
    return finish();
  }

 private:
  void set_plan() {
    if (flags_.plan.rate <= 0) flags_.plan.concurrency = std::max(flags_.concurrency, 1);
    const int automatic = flags_.plan.rate > 0 ? 4 : (flags_.plan.concurrency + 99) / 100;
    call_.num_connections = flags_.num_connections > 0 ? flags_.num_connections : automatic;
    call_.timeout_s = flags_.connection.timeout_s;
    call_.temperature = flags_.temperature;
    call_.client = flags_.connection.client;
  }

  absl::StatusOr<std::vector<WorkItem>> make_items(const DatasetSpec& spec, GrpcLoadTarget& target) const {
    PromptLimits limits;
    limits.vocab_size = model_.vocab_size();
    limits.max_context_len = model_.max_context_len();
    limits.avoided_ids.assign(model_.eos_token_ids().begin(), model_.eos_token_ids().end());
    if (spec.kind != DatasetSpec::Kind::sharegpt)
      return make_workload(spec, limits, flags_.num_requests, flags_.plan.seed);
    return make_sharegpt_workload(spec, limits, flags_.num_requests, flags_.plan.seed,
                                  [&target](const std::string& text) -> absl::StatusOr<int64_t> {
                                    int64_t count = 0;
                                    const grpc::Status status = target.count_tokens(text, count);
                                    if (!status.ok()) return rpc::from_grpc(status);
                                    return count;
                                  });
  }

  void measure(const std::vector<WorkItem>& items, GrpcLoadTarget& target) {
    SteadyLoadClock clock;
    LoadRun load(items, flags_.plan, target, clock);
    const InterruptWatch watch([&load] { load.interrupt(); });
    const ProgressBar progress([&load, &items] {
      const size_t ended = load.num_ended();
      return absl::StrFormat("%s  %d of %d done, %d running, %d failed", bar(ended, items.size(), 20), ended,
                             items.size(), load.num_started() - ended, load.num_failed());
    });
    report_ = summarize(load.run(), targets_);
    interrupted_ = watch.interrupted();
  }

  nlohmann::json json() const {
    nlohmann::json json = to_json(report_, targets_);
    json["address"] = flags_.connection.address;
    json["model"] = model_.name();
    json["num_replicas"] = model_.num_replicas();
    json["dataset"] = flags_.dataset;
    json["seed"] = flags_.plan.seed;
    json["connections"] = call_.num_connections;
    if (flags_.plan.rate > 0) {
      json["rate"] = flags_.plan.rate;
    } else {
      json["concurrency"] = flags_.plan.concurrency;
    }
    if (flags_.no_null) return json;
    json["null_server"] = {{"requests_per_s", null_.requests_per_s},
                           {"output_tokens_per_s", null_.tokens_per_s},
                           {"ttft_ms_p50", null_.ttft_ms.p50},
                           {"ttft_ms_p99", null_.ttft_ms.p99},
                           {"itl_ms_p99", null_.itl_ms.p99}};
    return json;
  }

  void print() const {
    const std::string load = flags_.plan.rate > 0
                                 ? absl::StrFormat("%.6g requests/s, Poisson", flags_.plan.rate)
                                 : absl::StrCat(flags_.plan.concurrency, " at a time");
    std::printf("%s: model %s, %d replicas; %s, %s, seed %llu\n", flags_.connection.address.c_str(),
                model_.name().c_str(), model_.num_replicas(), flags_.dataset.c_str(), load.c_str(),
                static_cast<unsigned long long>(flags_.plan.seed));
    std::printf("%s", to_text(report_, targets_).c_str());
    if (flags_.no_null) return;
    std::printf(
        "\nthis side alone, against a null server in its own process: %.0f requests/s, %.0f tokens/s; TTFT "
        "P50 %.2f, P99 %.2f ms; ITL P99 %.3f ms\n",
        null_.requests_per_s, null_.tokens_per_s, null_.ttft_ms.p50, null_.ttft_ms.p99, null_.itl_ms.p99);
    if (2 * report_.output_tokens_per_s() > null_.tokens_per_s)
      std::printf("note: that is less than twice what was measured, so this side may be the limit\n");
  }

  int finish() const {
    if (!flags_.json_file.empty()) {
      const std::string text = json().dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
      if (flags_.json_file == "-") {
        std::printf("%s", text.c_str());
      } else if (!(std::ofstream(flags_.json_file) << text << std::flush)) {
        return fail(absl::StrCat("--json ", flags_.json_file, ": cannot write it"), kExitInvalid);
      }
    }
    if (flags_.json_file != "-") print();
    std::fflush(stdout);
    return verdict();
  }

  int verdict() const {
    if (interrupted_) return kExitInterrupted;
    if (report_.wrong_lengths > 0) return fail("answers of the wrong length", kExitFailed);
    const auto refused = report_.errors_by_code.find("RESOURCE_EXHAUSTED");
    const int64_t num_refused = refused == report_.errors_by_code.end() ? 0 : refused->second;
    if (report_.errors > num_refused) return kExitFailed;
    return flags_.strict && num_refused > 0 ? kExitUnavailable : kExitOk;
  }

  Flags& flags_;
  GoodputTargets targets_;
  CallOptions call_;
  v1::GetModelResponse model_;
  NullFigures null_;
  LoadReport report_;
  bool interrupted_ = false;
};

void add_load_options(CLI::App& command, Flags& flags) {
  command
      .add_option("--dataset", flags.dataset,
                  "random:IN,OUT tokens; prefix:SHARED,UNIQUE,OUT[,GROUPS]: prompts that begin alike within "
                  "a group; sharegpt:FILE: first turns of conversations, answers as long as the second ones")
      ->capture_default_str();
  auto* concurrency = command.add_option("--concurrency", flags.concurrency,
                                         "requests at a time; the next is sent when one ends [1]");
  concurrency->check(CLI::Range(1, 100000));
  command
      .add_option("--rate", flags.plan.rate,
                  "requests per second, Poisson, whatever the server can take; latency counts from the "
                  "scheduled arrival")
      ->check(CLI::Range(1e-3, 1e6))
      ->excludes(concurrency);
  command.add_option("--requests", flags.num_requests, "in all")
      ->check(CLI::Range(size_t{1}, size_t{10'000'000}))
      ->capture_default_str();
  command.add_option("--seed", flags.plan.seed, "same seed: same prompts and arrivals")
      ->capture_default_str();
  command.add_option("--temperature", flags.temperature, "0 is greedy")
      ->check(CLI::Range(0.0, 100.0))
      ->capture_default_str();
  command.add_option("--connections", flags.num_connections, "[one per 100 of --concurrency; 4 with --rate]")
      ->check(CLI::Range(1, 1000));
}

}  // namespace

void add_serve_bench_command(CLI::App& bench, int& exit_code) {
  CLI::App* command = bench.add_subcommand(
      "serve", "A server under load, as its clients see it: latencies, throughput, errors");
  auto flags = std::make_shared<Flags>();
  command->footer(absl::StrCat(
      "Percentiles are exact, over all samples of the requests that ended well. TTFT: to the first token. "
      "ITL: the gap before a message, divided by its tokens, once for each. TPOT: (end to end - TTFT) / "
      "(tokens - 1), per request. \"sent late by\" is this side's own lateness and part of the others.\n"
      "RESOURCE_EXHAUSTED is counted and fails nothing, but with --strict. This load is one client's: of one "
      "client at most 32 requests wait on a replica unless its --max-queued-per-client says otherwise.\n",
      kExitCodeHelp));
  add_connection_options(*command, flags->connection);
  add_load_options(*command, *flags);
  add_client_option(*command, flags->connection);
  command->add_option("--goodput", flags->goodput,
                      "targets a request must meet to count, e.g. ttft:500,tpot:50,e2e:4000 (ms)");
  command->add_option("--json", flags->json_file, "write the report here too; -: to standard output alone")
      ->type_name("FILE");
  command->add_flag("--strict", flags->strict, "exit code 3 when requests were refused for lack of room");
  command->add_flag("--no-null-server", flags->no_null, "do not measure this side alone first");
  command->callback([flags, &exit_code] { exit_code = ServeBench(*flags).run(); });
}

}  // namespace trireme::client
