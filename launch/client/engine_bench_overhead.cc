#include "launch/client/engine_bench_overhead.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <vector>

#include "absl/strings/str_format.h"
#include "kernels/check.h"
#include "launch/client/portable_random.h"

namespace trireme::client {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::minutes kDeadline{10};
constexpr int kPromptTokens = 16;
constexpr int kWarmUpSteps = 16;  // of each repeat, a multiple of four: the prompt is among them

double milliseconds_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
}

double quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(q * static_cast<double>(values.size() - 1) + 0.5)];
}

/// On, off, off, on.
bool is_on(int step) { return step % 4 == 0 || step % 4 == 3; }

struct Samples {
  std::vector<double> on, off, ratios, reports;
};

absl::Status submit(Engine& engine, const OverheadOptions& options, int repeat, PortableRandom& random) {
  for (int i = 0; i < options.streams; ++i) {
    Request request;
    request.handle = static_cast<RequestHandle>(repeat * options.streams + i + 1);
    for (int t = 0; t < kPromptTokens; ++t) {
      const auto vocab = static_cast<uint64_t>(options.engine.model.vocab_size);
      request.prompt.push_back(static_cast<int32_t>(random.below(vocab)));
    }
    request.stopping.max_tokens = options.steps;
    request.stopping.ignore_eos = true;
    if (absl::Status submitted = engine.submit(std::move(request)); !submitted.ok()) return submitted;
  }
  return absl::OkStatus();
}

/// The prompts take one step and every other token another.
absl::Status lead(Engine& engine, const OverheadOptions& options, Samples& samples) {
  PortableRandom random(1);
  std::vector<TokenOutput> outputs;
  for (int repeat = 0; repeat < options.repeats; ++repeat) {
    if (absl::Status status = submit(engine, options, repeat, random); !status.ok()) return status;
    double four[2] = {0, 0};
    for (int step = 0; step < options.steps; ++step) {
      engine.phases().enable(is_on(step));
      outputs.clear();
      const auto begin = Clock::now();
      const auto stepped = engine.step(outputs);
      const double took = milliseconds_since(begin);
      if (!stepped.ok()) return stepped.status();
      CHECK_EQ(*stepped, true);
      if (step < kWarmUpSteps) continue;
      (is_on(step) ? samples.on : samples.off).push_back(took);
      four[is_on(step) ? 1 : 0] += took;
      if (step % 4 == 3) {
        samples.ratios.push_back(four[1] / four[0] - 1);
        four[0] = four[1] = 0;
      }
    }
    engine.phases().enable(true);
    CHECK_EQ(engine.has_work(), false);
    const auto begin = Clock::now();
    const auto told = engine.gather_telemetry();
    if (!told.ok()) return told.status();
    if (repeat > 0) samples.reports.push_back(milliseconds_since(begin));  // the first one compares clocks
  }
  return engine.broadcast_stop();
}

/// Knows by counting which plan comes next: the steps of a repeat, then a report.
absl::Status follow(Engine& engine, const OverheadOptions& options) {
  for (int plan = 0;; ++plan) {
    const int step = plan % (options.steps + 1);
    engine.phases().enable(step == options.steps || is_on(step));
    const auto followed = engine.follow(kDeadline);
    if (!followed.ok()) return followed.status();
    if (!*followed) return absl::OkStatus();
  }
}

OverheadReport summarize(const OverheadOptions& options, const Samples& samples) {
  OverheadReport report;
  report.streams = options.streams;
  report.traced = options.engine.trace_steps > 0;
  report.fours = samples.ratios.size();
  report.on_ms = quantile(samples.on, 0.5);
  report.off_ms = quantile(samples.off, 0.5);
  report.overhead = quantile(samples.ratios, 0.5);
  report.quartile_1 = quantile(samples.ratios, 0.25);
  report.quartile_3 = quantile(samples.ratios, 0.75);
  // Of a median of normal samples, whose quartiles are 1.349 deviations apart.
  report.standard_error = 1.253 * (report.quartile_3 - report.quartile_1) / 1.349 /
                          std::sqrt(static_cast<double>(std::max<size_t>(report.fours, 1)));
  report.fast_on_ms = quantile(samples.on, 0.1);
  report.fast_off_ms = quantile(samples.off, 0.1);
  report.report_ms = quantile(samples.reports, 0.5);
  return report;
}

}  // namespace

std::string OverheadReport::to_text() const {
  return absl::StrFormat(
      "%d streams, %d fours of steps (with, without, without, with timelines%s)\n"
      "a step: with %.4f ms, without %.4f ms; overhead %+.2f %% +- %.2f (quartiles %+.2f to %+.2f)\n"
      "fastest tenth: with %.4f ms, without %.4f ms; overhead %+.2f %%\n"
      "a report to the leader, once a second: %.3f ms, %.3f %%\n"
      "timelines cost %+.2f %%",
      streams, fours, traced ? " and a trace" : "", on_ms, off_ms, 100 * overhead, 100 * standard_error,
      100 * quartile_1, 100 * quartile_3, fast_on_ms, fast_off_ms, 100 * fast_overhead(), report_ms,
      report_ms / 10, 100 * whole());
}

nlohmann::json OverheadReport::to_json() const {
  return {{"streams", streams},
          {"traced", traced},
          {"fours", fours},
          {"step_ms_with", on_ms},
          {"step_ms_without", off_ms},
          {"overhead_fraction", overhead},
          {"overhead_standard_error", standard_error},
          {"overhead_quartiles", {quartile_1, quartile_3}},
          {"fastest_tenth_ms_with", fast_on_ms},
          {"fastest_tenth_ms_without", fast_off_ms},
          {"fastest_tenth_overhead_fraction", fast_overhead()},
          {"report_ms", report_ms},
          {"whole_fraction", whole()}};
}

absl::StatusOr<OverheadReport> run_overhead_scenario(OverheadOptions options, HostGroup& world) {
  options.steps = std::max((options.steps + 3) / 4 * 4, 2 * kWarmUpSteps);
  options.repeats = std::max(options.repeats, 2);
  options.engine.max_num_seqs = options.streams;
  options.engine.max_step_tokens = std::max(options.engine.max_step_tokens, options.streams * kPromptTokens);
  options.engine.max_context_len = kPromptTokens + options.steps;
  options.engine.enable_prefix_cache = false;
  auto engine = Engine::create(options.engine, world);
  if (!engine.ok()) return engine.status();
  Samples samples;
  absl::Status status = world.rank() == 0 ? lead(**engine, options, samples) : follow(**engine, options);
  if (!status.ok()) return status;
  return summarize(options, samples);
}

}  // namespace trireme::client
