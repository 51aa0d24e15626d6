#pragma once
// What the RPC side hands to the engine's thread: new requests and cancels.

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "absl/status/status.h"
#include "engine/request.h"
#include "worker/outbox.h"

namespace trireme::worker {

struct Submission {
  std::vector<Request> samples;  // of one prompt, taken or refused as one; at least one
  std::shared_ptr<RequestSink> sink;
};

/// Everything that came in since the last look. A cancel always follows the submission it means.
struct Commands {
  std::vector<Submission> submissions;
  std::vector<RequestHandle> cancels;
  bool empty() const { return submissions.empty() && cancels.empty(); }
  void clear();
};

/// How much may wait to be started, in the inbox and in the engine together. Every sample counts as a
/// request.
struct QueueLimits {
  int64_t max_requests = 256;
  int64_t max_prompt_tokens = 512 << 10;
};

/// Requests and tokens that wait to be started.
struct Waiting {
  int64_t requests = 0;
  int64_t prompt_tokens = 0;
};

/// Bounded; any number of producers, one consumer. Nothing in it blocks a producer.
class Inbox {
 public:
  explicit Inbox(QueueLimits limits) : limits_(limits) {}

  /// RESOURCE_EXHAUSTED when too much waits already, UNAVAILABLE once closed. A request is always taken when
  /// nothing else waits.
  absl::Status push(Submission submission);
  /// Never refused, also when closed.
  void cancel(RequestHandle handle);
  /// Takes no further submissions.
  void close();
  bool closed() const;
  /// Makes a waiting take() return.
  void wake();

  /// The consumer: moves everything into `commands` (cleared before). Waits until something is in, wake() was
  /// called or the deadline has passed.
  void take(Commands& commands, std::chrono::steady_clock::time_point deadline);
  /// The consumer, after it has handed what it took to the engine: what waits there now.
  void set_engine_waiting(Waiting waiting);
  Waiting waiting() const;

 private:
  const QueueLimits limits_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Commands commands_;
  Waiting queued_;  // pushed, and not yet part of `engine_`
  Waiting taken_;   // of those, taken
  Waiting engine_;
  bool closed_ = false;
  bool woken_ = false;
};

}  // namespace trireme::worker
