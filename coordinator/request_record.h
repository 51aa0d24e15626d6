#pragma once
// What a coordinator counts of the requests it relays, and what it adds to their receipts.

#include <array>
#include <chrono>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/histogram.h"
#include "engine/base/metric_bounds.h"
#include "trireme/v1/inference.pb.h"

namespace trireme {

/// Counters and histograms since the start; times in seconds. Any thread, no locks.
struct RelayMetrics {
  std::array<Counter, 17> ended;  // Generate and GenerateOnce by status code, refused ones included
  Counter output_tokens;          // passed on
  Counter resumes;                // attempts after the first that began
  Histogram time_to_first_token{request_time_bounds()};
  Histogram inter_token{step_time_bounds()};
  Histogram end_to_end{request_time_bounds()};  // of those that ended with OK
  Histogram routing_time{step_time_bounds()};

  /// `code`: of gRPC; what is none counts as UNKNOWN.
  void count_end(int code);
};

/// Follows one request from its arrival to its end. One event at a time; `metrics` must outlive it.
class RequestRecord {
 public:
  using Clock = std::chrono::steady_clock;
  using Metadata = std::vector<std::pair<std::string, std::string>>;

  RequestRecord(RelayMetrics& metrics, Clock::time_point arrival) : metrics_(metrics), arrival_(arrival) {}

  /// The call to a replica is made now: the first, or the next after one was lost.
  void routed(const std::string& replica_id, bool is_resume, Clock::time_point now);
  /// A message is handed to the client now. Tokens of one message follow each other at 0.
  void passed_on(const v1::GenerateResponse& message, Clock::time_point now);
  void ended(int code, Clock::time_point now);

  /// The coordinator's part of the receipt, as in inference.proto.
  Metadata metadata() const;

 private:
  RelayMetrics& metrics_;
  const Clock::time_point arrival_;
  Clock::duration routing_time_{0};
  Clock::time_point first_call_;     // to a replica
  Clock::duration earlier_time_{0};  // from there to the last call
  int64_t num_tokens_ = 0;           // passed on, of all samples
  int64_t num_earlier_tokens_ = 0;   // of those, before the last call
  std::vector<std::string> replica_ids_;
  std::vector<Clock::time_point> last_token_;  // by sample
  int num_resumes_ = 0;
  bool has_token_ = false;
};

}  // namespace trireme
