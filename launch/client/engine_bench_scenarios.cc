#include "launch/client/engine_bench_scenarios.h"

#include <algorithm>
#include <chrono>
#include <functional>

#include "absl/strings/str_format.h"
#include "kernels/check.h"
#include "launch/client/load_record.h"
#include "launch/client/portable_random.h"

namespace trireme::client {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::minutes kDeadline{10};
constexpr int kStreamPromptTokens = 16;

double milliseconds_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
}

double percentile_of(std::vector<double> samples, int percent) {
  if (samples.empty()) return 0;
  std::sort(samples.begin(), samples.end());
  return percentile(samples, percent);
}

/// The engine of rank 0, driven by hand.
class Driver {
 public:
  Driver(Engine& engine, int vocab_size) : engine_(engine), vocab_size_(static_cast<uint64_t>(vocab_size)) {}

  std::vector<int32_t> random_ids(int count) {
    std::vector<int32_t> ids;
    for (int i = 0; i < count; ++i) ids.push_back(static_cast<int32_t>(random_.below(vocab_size_)));
    return ids;
  }
  absl::StatusOr<RequestHandle> submit(std::vector<int32_t> prompt, int max_tokens) {
    Request request;
    request.handle = ++last_handle_;
    request.prompt = std::move(prompt);
    request.stopping.max_tokens = max_tokens;
    request.stopping.ignore_eos = true;
    if (absl::Status submitted = engine_.submit(std::move(request)); !submitted.ok()) return submitted;
    return last_handle_;
  }
  /// One step; its time in milliseconds and what it gave.
  absl::StatusOr<double> step() {
    outputs_.clear();
    const auto begin = Clock::now();
    auto stepped = engine_.step(outputs_);
    if (!stepped.ok()) return stepped.status();
    return milliseconds_since(begin);
  }
  const std::vector<TokenOutput>& outputs() const { return outputs_; }
  const TokenOutput* output_of(RequestHandle handle) const {
    const auto found = std::find_if(outputs_.begin(), outputs_.end(),
                                    [handle](const TokenOutput& output) { return output.handle == handle; });
    return found == outputs_.end() ? nullptr : &*found;
  }
  /// Steps until there is nothing left.
  absl::Status finish() {
    while (engine_.has_work()) {
      if (auto stepped = step(); !stepped.ok()) return stepped.status();
    }
    return absl::OkStatus();
  }
  Engine& engine() { return engine_; }

 private:
  Engine& engine_;
  const uint64_t vocab_size_;
  PortableRandom random_{1};
  RequestHandle last_handle_ = 0;
  std::vector<TokenOutput> outputs_;
};

/// Makes the engine and runs `lead` on rank 0 while the others follow.
absl::Status run_on(const EngineConfig& config, HostGroup& world,
                    const std::function<absl::Status(Driver&)>& lead) {
  auto engine = Engine::create(config, world);
  if (!engine.ok()) return engine.status();
  if (world.rank() == 0) {
    Driver driver(**engine, config.model.vocab_size);
    absl::Status status = lead(driver);
    status.Update((*engine)->broadcast_stop());
    return status;
  }
  for (;;) {
    auto followed = (*engine)->follow(kDeadline);
    if (!followed.ok()) return followed.status();
    if (!*followed) return absl::OkStatus();
  }
}

struct FirstToken {
  double ms = 0;
  int cached_tokens = 0;
};

/// On an idle engine. The request ends with that token.
absl::StatusOr<FirstToken> first_token(Driver& driver, std::vector<int32_t> prompt) {
  const auto begin = Clock::now();
  auto handle = driver.submit(std::move(prompt), 1);
  if (!handle.ok()) return handle.status();
  for (;;) {
    if (auto stepped = driver.step(); !stepped.ok()) return stepped.status();
    if (const TokenOutput* output = driver.output_of(*handle))
      return FirstToken{milliseconds_since(begin), output->num_cached_tokens};
  }
}

absl::Status lead_prefix(Driver& driver, const ScenarioOptions& options, PrefixReport& report) {
  report.cached_tokens = report.prompt_tokens;
  for (int repeat = -1; repeat < options.repeats; ++repeat) {  // the first warms up
    const std::vector<int32_t> prompt = driver.random_ids(report.prompt_tokens);
    auto cold = first_token(driver, prompt);
    if (!cold.ok()) return cold.status();
    std::vector<int32_t> like_it(prompt.begin(), prompt.begin() + report.shared_tokens);
    const auto rest = driver.random_ids(report.prompt_tokens - report.shared_tokens);
    like_it.insert(like_it.end(), rest.begin(), rest.end());
    auto shared = first_token(driver, std::move(like_it));
    if (!shared.ok()) return shared.status();
    if (repeat < 0) continue;
    report.cold.push_back(cold->ms);
    report.shared.push_back(shared->ms);
    report.cached_tokens = std::min(report.cached_tokens, shared->cached_tokens);
  }
  std::vector<double> ratios;
  for (size_t i = 0; i < report.cold.size(); ++i) ratios.push_back(report.shared[i] / report.cold[i]);
  report.cold_ms = percentile_of(report.cold, 50);
  report.shared_ms = percentile_of(report.shared, 50);
  report.ratio = percentile_of(ratios, 50);
  return absl::OkStatus();
}

struct ChunkedSamples {
  std::vector<double> undisturbed, disturbed, chunks, long_ttft;

  void add(const ChunkedSamples& more) {
    undisturbed.insert(undisturbed.end(), more.undisturbed.begin(), more.undisturbed.end());
    disturbed.insert(disturbed.end(), more.disturbed.begin(), more.disturbed.end());
    chunks.insert(chunks.end(), more.chunks.begin(), more.chunks.end());
    long_ttft.insert(long_ttft.end(), more.long_ttft.begin(), more.long_ttft.end());
  }
  double rise_in_chunks() const {
    return (percentile_of(disturbed, 99) - percentile_of(undisturbed, 99)) / percentile_of(chunks, 99);
  }
};

/// A long prompt by itself: the time of each full chunk.
absl::Status measure_chunks(Driver& driver, const ScenarioOptions& options, ChunkedSamples& samples) {
  auto handle = driver.submit(driver.random_ids(options.long_prompt_tokens), 1);
  if (!handle.ok()) return handle.status();
  for (int left = options.long_prompt_tokens; left > 0; left -= options.engine.max_step_tokens) {
    auto took = driver.step();
    if (!took.ok()) return took.status();
    if (left >= options.engine.max_step_tokens) samples.chunks.push_back(*took);
  }
  return driver.finish();
}

/// Streams that decode, first alone, then while a long prompt is computed among them, then to their end. In
/// every step counted each stream gets a token, so the time of a step is the time between two of its tokens.
absl::Status measure_streams(Driver& driver, const ScenarioOptions& options, ChunkedSamples& samples) {
  const int chunks =
      options.long_prompt_tokens / std::max(options.engine.max_step_tokens - options.streams, 1) + 1;
  const auto streams = static_cast<size_t>(options.streams);
  for (size_t i = 0; i < streams; ++i) {
    auto handle =
        driver.submit(driver.random_ids(kStreamPromptTokens), 2 * options.stream_steps + chunks + 8);
    if (!handle.ok()) return handle.status();
  }
  do {  // until all are beyond their prompts
    if (auto stepped = driver.step(); !stepped.ok()) return stepped.status();
  } while (driver.outputs().size() < streams);
  for (int i = 0; i < options.stream_steps; ++i) {
    auto took = driver.step();
    if (!took.ok()) return took.status();
    samples.undisturbed.push_back(*took);
  }
  const auto begin = Clock::now();
  auto prompt = driver.submit(driver.random_ids(options.long_prompt_tokens), 1);
  if (!prompt.ok()) return prompt.status();
  bool arrived = false;
  for (int i = 0; i < options.stream_steps || !arrived; ++i) {
    auto took = driver.step();
    if (!took.ok()) return took.status();
    samples.disturbed.push_back(*took);
    if (driver.outputs().size() < streams) return absl::InternalError("a stream got no token in a step");
    if (!arrived && driver.output_of(*prompt) != nullptr) {
      arrived = true;
      samples.long_ttft.push_back(milliseconds_since(begin));
    }
  }
  return driver.finish();
}

absl::Status lead_chunked(Driver& driver, const ScenarioOptions& options, ChunkedReport& report) {
  ChunkedSamples samples, warm_up;
  if (absl::Status status = measure_chunks(driver, options, warm_up); !status.ok()) return status;
  for (int repeat = 0; repeat < options.repeats; ++repeat) {
    ChunkedSamples once;
    if (absl::Status status = measure_chunks(driver, options, once); !status.ok()) return status;
    if (absl::Status status = measure_streams(driver, options, once); !status.ok()) return status;
    report.rises.push_back(once.rise_in_chunks());
    samples.add(once);
  }
  report.rise_in_chunks = percentile_of(report.rises, 50);
  report.samples = samples.disturbed.size();
  report.undisturbed_p50 = percentile_of(samples.undisturbed, 50);
  report.undisturbed_p99 = percentile_of(samples.undisturbed, 99);
  report.disturbed_p50 = percentile_of(samples.disturbed, 50);
  report.disturbed_p99 = percentile_of(samples.disturbed, 99);
  report.disturbed_max = percentile_of(samples.disturbed, 100);
  report.chunk_ms = percentile_of(samples.chunks, 50);
  report.long_ttft_ms = percentile_of(samples.long_ttft, 50);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<PrefixReport> run_prefix_scenario(ScenarioOptions options, HostGroup& world) {
  PrefixReport report;
  report.prompt_tokens = options.prefix_prompt_tokens;
  report.shared_tokens = options.prefix_prompt_tokens * 9 / 10;
  options.engine.enable_prefix_cache = true;
  options.engine.max_num_seqs = 1;
  if (options.engine.max_context_len == 0) options.engine.max_context_len = report.prompt_tokens + 1;
  absl::Status status =
      run_on(options.engine, world, [&](Driver& driver) { return lead_prefix(driver, options, report); });
  if (!status.ok()) return status;
  return report;
}

absl::StatusOr<ChunkedReport> run_chunked_scenario(ScenarioOptions options, HostGroup& world) {
  ChunkedReport report;
  report.streams = options.streams;
  report.long_prompt_tokens = options.long_prompt_tokens;
  report.chunk_tokens = options.engine.max_step_tokens;
  if (options.long_prompt_tokens < options.engine.max_step_tokens ||
      options.streams >= options.engine.max_step_tokens) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "scenario chunked: got %d streams and a prompt of %d tokens, wanted fewer streams and "
        "at least as many tokens as the %d of --max-step-tokens",
        options.streams, options.long_prompt_tokens, options.engine.max_step_tokens));
  }
  options.engine.enable_prefix_cache = false;
  options.engine.max_num_seqs = options.streams + 1;
  if (options.engine.max_context_len == 0) {
    const int chunks =
        options.long_prompt_tokens / std::max(options.engine.max_step_tokens - options.streams, 1);
    options.engine.max_context_len = std::max(options.long_prompt_tokens + 1,
                                              kStreamPromptTokens + 2 * options.stream_steps + chunks + 16);
  }
  absl::Status status =
      run_on(options.engine, world, [&](Driver& driver) { return lead_chunked(driver, options, report); });
  if (!status.ok()) return status;
  return report;
}

std::string PrefixReport::to_text() const {
  return absl::StrFormat(
      "time to first token of %d prompt tokens, medians of %d in turns: cold %.1f ms, with %d of them shared "
      "(%d cached) %.1f ms: %.1f %%",
      prompt_tokens, static_cast<int>(cold.size()), cold_ms, shared_tokens, cached_tokens, shared_ms,
      100 * ratio);
}

nlohmann::json PrefixReport::to_json() const {
  return {{"prompt_tokens", prompt_tokens}, {"shared_tokens", shared_tokens},
          {"cached_tokens", cached_tokens}, {"cold_ttft_ms", cold_ms},
          {"shared_ttft_ms", shared_ms},    {"ratio", ratio},
          {"all_cold_ttft_ms", cold},       {"all_shared_ttft_ms", shared}};
}

std::string ChunkedReport::to_text() const {
  return absl::StrFormat(
      "inter-token time of %d streams: alone P50 %.2f ms, P99 %.2f ms; while a prompt of %d tokens is "
      "computed "
      "in chunks of %d among them P50 %.2f ms, P99 %.2f ms, at most %.2f ms (%d steps)\n"
      "a chunk by itself takes %.2f ms (P50); P99 rises by %.2f of the P99 of a chunk (median of %d repeats, "
      "%.2f to %.2f); the long prompt's first token came after %.1f ms",
      streams, undisturbed_p50, undisturbed_p99, long_prompt_tokens, chunk_tokens, disturbed_p50,
      disturbed_p99, disturbed_max, static_cast<int>(samples), chunk_ms, rise_in_chunks,
      static_cast<int>(rises.size()), *std::min_element(rises.begin(), rises.end()),
      *std::max_element(rises.begin(), rises.end()), long_ttft_ms);
}

nlohmann::json ChunkedReport::to_json() const {
  return {{"streams", streams},
          {"long_prompt_tokens", long_prompt_tokens},
          {"chunk_tokens", chunk_tokens},
          {"samples", samples},
          {"undisturbed_itl_ms_p50", undisturbed_p50},
          {"undisturbed_itl_ms_p99", undisturbed_p99},
          {"disturbed_itl_ms_p50", disturbed_p50},
          {"disturbed_itl_ms_p99", disturbed_p99},
          {"disturbed_itl_ms_max", disturbed_max},
          {"chunk_ms", chunk_ms},
          {"p99_rise_in_chunks", rise_in_chunks},
          {"all_p99_rises_in_chunks", rises},
          {"long_prompt_ttft_ms", long_ttft_ms}};
}

}  // namespace trireme::client
