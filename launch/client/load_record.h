#pragma once
// What one request of a load experienced, and what all of them add up to.

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <grpcpp/support/status.h>
#include <nlohmann/json.hpp>

#include "absl/status/statusor.h"

namespace trireme::client {

using LoadTime = std::chrono::steady_clock::time_point;

/// One request, from its place in the schedule to its end. One thread writes at a time.
struct CallRecord {
  struct Arrival {
    LoadTime time;
    int32_t num_tokens;  // of one message, at least 1
  };
  bool started = false;
  bool interrupted = false;  // ended from this side, before its time
  LoadTime scheduled{};      // when it was to be sent: with an arrival rate latency counts from here
  LoadTime sent{};           // when it was
  LoadTime ended{};          // when its status came
  std::vector<Arrival> arrivals;
  int64_t num_tokens = 0;       // of all arrivals
  int32_t expected_tokens = 0;  // 0: whatever comes is right
  int64_t prompt_tokens = 0;    // as the server counted
  int64_t cached_tokens = 0;
  grpc::Status status;
};

/// Exact: of all samples, none dropped and none put into buckets.
struct Distribution {
  size_t count = 0;
  double mean = 0, p50 = 0, p95 = 0, p99 = 0, max = 0;
};
/// The smallest sample that at least `percent` % of the samples do not exceed (nearest rank). `sorted` is
/// ascending and not empty; percent from 1 to 100.
double percentile(const std::vector<double>& sorted, int percent);
Distribution describe_samples(std::vector<double> samples);

/// What a request has to meet to count as good; absent ones always hold. Milliseconds.
struct GoodputTargets {
  std::optional<double> ttft_ms, tpot_ms, e2e_ms;
  bool any() const { return ttft_ms || tpot_ms || e2e_ms; }
};
/// "ttft:500,tpot:50,e2e:4000", any of them once; INVALID_ARGUMENT naming the part.
absl::StatusOr<GoodputTargets> parse_goodput(const std::string& text);

struct LoadReport {
  int64_t requests = 0;  // asked for: ok + errors + interrupted + not_started
  int64_t ok = 0, errors = 0, interrupted = 0, not_started = 0;
  std::map<std::string, int64_t> errors_by_code;
  std::map<std::string, std::string> example_by_code;  // the first message of each
  int64_t wrong_lengths = 0;                           // of the ok ones, not as many tokens as forced
  double duration_s = 0;                               // first scheduled arrival to last end
  // Of the ok ones.
  int64_t prompt_tokens = 0, cached_tokens = 0, output_tokens = 0, messages = 0;
  Distribution ttft_ms, itl_ms, tpot_ms, e2e_ms;
  Distribution send_delay_ms;  // scheduled to sent: this side's own lateness, part of the others
  int64_t good = 0;            // met all targets

  double requests_per_s() const { return per_second(ok); }
  double output_tokens_per_s() const { return per_second(output_tokens); }
  double total_tokens_per_s() const { return per_second(prompt_tokens + output_tokens); }
  double goodput_per_s() const { return per_second(good); }

 private:
  double per_second(int64_t count) const {
    return duration_s > 0 ? static_cast<double>(count) / duration_s : 0;
  }
};

/// TTFT: scheduled to first token. ITL: the gap before a message divided by its k tokens, k times; further
/// tokens of the first message have 0. So a request's ITLs add up to last token - first token. TPOT:
/// (end to end - TTFT) / (tokens - 1), of requests with at least two. End to end: scheduled to status.
LoadReport summarize(const std::vector<CallRecord>& records, const GoodputTargets& targets);
nlohmann::json to_json(const LoadReport& report, const GoodputTargets& targets);
/// A table for people.
std::string to_text(const LoadReport& report, const GoodputTargets& targets);

}  // namespace trireme::client
