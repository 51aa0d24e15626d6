#pragma once
// What a leader counts of the requests it serves.

#include <array>
#include <atomic>
#include <cstdint>

#include "engine/base/histogram.h"
#include "engine/base/metric_bounds.h"
#include "engine/request.h"

namespace trireme::worker {

/// Milestones of a request on the steady clock, in nanoseconds since its epoch; 0: not reached, or not known.
/// Written by the engine's thread before the output they belong to, read by any.
struct RequestTimes {
  std::atomic<int64_t> started_ns{0};  // its first step began
  std::atomic<int64_t> first_token_ns{0};
  std::atomic<int64_t> last_token_ns{0};
  std::atomic<int64_t> collective_ns{0};  // that the leader spent in collectives from started to last token
};

/// By gRPC status code, which ends at 16.
using CodeCounters = std::array<Counter, 17>;

/// Counters and histograms since the start; times in seconds. Any thread, no locks.
struct ServingMetrics {
  // Requests that were taken and ended with a status of OK.
  Histogram time_to_first_token{request_time_bounds()};
  Histogram end_to_end{request_time_bounds()};
  Histogram time_per_output_token{step_time_bounds()};  // of those with two tokens or more
  Histogram queue_time{request_time_bounds()};
  Histogram prefill_time{request_time_bounds()};
  Histogram decode_time{request_time_bounds()};
  Histogram prompt_tokens{token_count_bounds()};
  Histogram output_tokens{token_count_bounds()};

  Histogram inter_token{step_time_bounds()};  // between tokens of one sample
  std::array<Counter, 5> finished;            // samples, by FinishReason
  Counter succeeded, cancelled, resumed;      // requests
  Counter queued_prompt_tokens;
  CodeCounters rejected;  // requests the engine never had
  CodeCounters failed;    // requests that ended with an error
};

/// Now, as RequestTimes count.
int64_t steady_ns();

}  // namespace trireme::worker
