#pragma once
// What the RPC side hands to the engine's thread: new requests and cancels.

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
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
  /// Of one client. Those for which the engine has free slots do not count: they are about to be started.
  int64_t max_requests_per_client = 32;  // 0: no bound
};

/// Requests and tokens that wait to be started.
struct Waiting {
  int64_t requests = 0;
  int64_t prompt_tokens = 0;
};

/// Waiting requests by the client whose they are; what is nobody's is in none of them.
using WaitingByClient = std::unordered_map<std::string, int64_t>;

/// What the engine says of its own queue.
struct EngineQueue {
  Waiting waiting;
  int64_t free_slots = 0;  // requests that could be started at once
  WaitingByClient by_client = {};
};

/// Bounded; any number of producers, one consumer. Nothing in it blocks a producer.
class Inbox {
 public:
  explicit Inbox(QueueLimits limits) : limits_(limits) {}

  /// RESOURCE_EXHAUSTED when too much waits already, of all clients or of this one, UNAVAILABLE once closed.
  /// A request is always taken when nothing else waits, and no client's first one is too much of it.
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
  void set_engine_queue(EngineQueue queue);
  Waiting waiting() const;

 private:
  struct Queue {
    Waiting waiting;
    WaitingByClient by_client;
  };

  absl::Status check_room(const Submission& submission) const;
  absl::Status check_client(const Submission& submission) const;

  const QueueLimits limits_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Commands commands_;
  Queue queued_;  // pushed, and not yet part of `engine_`
  Queue taken_;   // of those, taken
  EngineQueue engine_;
  bool closed_ = false;
  bool woken_ = false;
};

}  // namespace trireme::worker
