#include "worker/leader_metrics.h"

#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "proto/support/errors.h"

namespace trireme::worker {

namespace {

void fill_load(const LeaderStatus& status, rpc::MetricsPage& page) {
  const SchedulerStats& engine = status.engine;
  page.gauge("num_requests_running", "Sequences in the current batch; a request has one per sample.",
             engine.running);
  page.gauge("num_requests_waiting", "Sequences that wait to be started.",
             static_cast<double>(status.waiting.requests));
  page.gauge("num_prompt_tokens_waiting", "Prompt tokens of the requests that wait to be started.",
             static_cast<double>(status.waiting.prompt_tokens));
  const int32_t used = engine.blocks_total - engine.blocks_free;
  page.gauge("kv_cache_usage_perc", "Share of the KV cache's blocks that requests hold; 1 is all.",
             engine.blocks_total > 0 ? static_cast<double>(used) / engine.blocks_total : 0);
  const char* const blocks = "Blocks of the KV cache; those that only keep a prefix for reuse are 'cached'.";
  page.gauge("kv_cache_blocks", blocks, used, {{"state", "used"}});
  page.gauge("kv_cache_blocks", blocks, engine.blocks_cached, {{"state", "cached"}});
  page.gauge("kv_cache_blocks", blocks, engine.blocks_free - engine.blocks_cached, {{"state", "free"}});
  page.gauge("kv_cache_blocks_of_finished_requests",
             "Blocks owned by requests that have ended; anything but 0 is a bug.", engine.blocks_of_finished);
  page.counter("prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache, once per sample.",
               static_cast<double>(engine.prompt_tokens));
  page.counter("prefix_cache_hits_total", "Prompt tokens found in the prefix cache.",
               static_cast<double>(engine.cached_prompt_tokens));
  page.counter("num_preemptions_total", "Requests put back to waiting because blocks ran out.",
               static_cast<double>(engine.preemptions));
  page.counter("generation_tokens_total", "Tokens sampled.", static_cast<double>(engine.output_tokens));
  page.counter("engine_steps_total", "Steps planned.", static_cast<double>(engine.steps));
}

void fill_by_code(const char* name, const char* help, const CodeCounters& counters, rpc::MetricsPage& page) {
  for (size_t code = 1; code < counters.size(); ++code) {
    page.counter(name, help, static_cast<double>(counters[code].value()),
                 {{"code", rpc::code_name(static_cast<grpc::StatusCode>(code))}});
  }
}

void fill_requests(const ServingMetrics& metrics, rpc::MetricsPage& page) {
  const char* const finished =
      "Samples that ended, by reason; a request has one unless it asked for more. 'abort': Cancel was "
      "called.";
  for (const auto& [reason, name] : {std::pair(FinishReason::length, "length"),
                                     {FinishReason::stop, "stop"},
                                     {FinishReason::cancelled, "abort"}}) {
    page.counter("request_success_total", finished,
                 static_cast<double>(metrics.finished[static_cast<size_t>(reason)].value()),
                 {{"finished_reason", name}});
  }
  page.counter("prompt_tokens_total", "Prompt tokens of the requests that were queued.",
               static_cast<double>(metrics.queued_prompt_tokens.value()));
  page.counter("requests_completed_total", "Requests that ended with status OK.",
               static_cast<double>(metrics.succeeded.value()));
  page.counter("requests_cancelled_total", "Requests ended by Cancel, a client that left, or a deadline.",
               static_cast<double>(metrics.cancelled.value()));
  page.counter("requests_resumed_total", "Requests that another replica had begun.",
               static_cast<double>(metrics.resumed.value()));
  fill_by_code("requests_rejected_total", "Requests refused before the engine had them.", metrics.rejected,
               page);
  fill_by_code("requests_failed_total", "Requests that ended with an error after they were taken.",
               metrics.failed, page);
}

void fill_times(const ServingMetrics& metrics, rpc::MetricsPage& page) {
  const auto add = [&page](const char* name, const char* help, const Histogram& histogram) {
    page.histogram(name, help, histogram.snapshot());
  };
  add("time_to_first_token_seconds", "From a request's arrival to its first token's message.",
      metrics.time_to_first_token);
  add("inter_token_latency_seconds", "Between two tokens of a sample, as the engine makes them.",
      metrics.inter_token);
  add("request_time_per_output_token_seconds",
      "From the first token to the end, per token after the first; of each completed request.",
      metrics.time_per_output_token);
  add("e2e_request_latency_seconds", "From a request's arrival to its end; of completed requests.",
      metrics.end_to_end);
  add("request_queue_time_seconds", "From a request's arrival to its first step.", metrics.queue_time);
  add("request_prefill_time_seconds", "From a request's first step to its first token.",
      metrics.prefill_time);
  add("request_decode_time_seconds", "From a request's first token to its last.", metrics.decode_time);
  add("request_prompt_tokens", "Prompt tokens of a completed request.", metrics.prompt_tokens);
  add("request_generation_tokens", "Tokens generated for a completed request.", metrics.output_tokens);
}

void fill_ranks(const LeaderStatus& status, rpc::MetricsPage& page) {
  page.counter("delivery_seconds_total",
               "Of the thread that turns tokens into text and messages, beside the steps.",
               static_cast<double>(status.delivery_ns) * 1e-9);
  for (size_t rank = 0; rank < status.ranks.size(); ++rank) {
    const RankTelemetry& telemetry = status.ranks[rank];
    const auto add = [&](std::string_view phase, int64_t ns) {
      page.counter(
          "step_phase_seconds_total",
          "Where the time of each rank's engine thread went, each phase by a clock of its own and the "
          "rest as 'unaccounted'; they add up to the time since the first. Told once a second.",
          static_cast<double>(ns) * 1e-9, {{"rank", absl::StrCat(rank)}, {"phase", std::string(phase)}});
    };
    for (int i = 0; i < kNumPhases; ++i) {
      const Phase phase = static_cast<Phase>(i);
      if (phase != Phase::collective) add(phase_name(phase), telemetry.times.of(phase));
    }
    add("collective_wait", telemetry.collective_wait_ns);
    add("collective_transfer", telemetry.collective_transfer_ns());
    add("unaccounted", telemetry.times.unaccounted_ns());
    const rpc::MetricLabels label{{"rank", absl::StrCat(rank)}};
    page.counter("collectives_total", "Sums, gathers and broadcasts between the ranks of the replica.",
                 static_cast<double>(telemetry.num_collectives), label);
    page.counter("collectives_compared_total",
                 "Those whose arrivals on all ranks told waiting from transfer; the others are split alike.",
                 static_cast<double>(telemetry.num_compared_collectives), label);
    page.gauge("clock_error_seconds", "Of the rank's arrivals, against the leader's clock; 0: one clock.",
               static_cast<double>(telemetry.clock_error_ns) * 1e-9, label);
    page.counter("compiled_kernels_total", "Kernels made while running: oneDNN's primitives.",
                 static_cast<double>(telemetry.num_compiled_kernels), label);
  }
}

}  // namespace

void fill_metrics(const LeaderStatus& status, const ServingMetrics& metrics, rpc::MetricsPage& page) {
  fill_load(status, page);
  fill_requests(metrics, page);
  fill_times(metrics, page);
  fill_ranks(status, page);
}

RequestTotals request_totals(const ServingMetrics& metrics) {
  RequestTotals totals;
  totals.cancelled = metrics.cancelled.value();
  totals.resumed = metrics.resumed.value();
  for (const Counter& counter : metrics.rejected) totals.rejected += counter.value();
  return totals;
}

}  // namespace trireme::worker
