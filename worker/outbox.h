#pragma once
// One request's way back: filled by the engine's thread, emptied by whoever writes to the client.

#include <cstddef>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/request.h"
#include "worker/serving_metrics.h"

namespace trireme::worker {

/// Tokens that wait for their reader, bounded in bytes. Filling never blocks and never calls out: a reader
/// that is too slow loses its own request and nothing else. Any threads.
class Outbox {
 public:
  static constexpr size_t kDefaultLimitBytes = 256 << 10;

  explicit Outbox(size_t limit_bytes = kDefaultLimitBytes) : limit_bytes_(limit_bytes) {}

  enum class Push {
    kWake,      // the consumer must be told
    kQueued,    // it has been told already and has not looked yet
    kOverflow,  // refused, now and from now on: more than the limit is unread
    kClosed,    // refused: the consumer wants nothing more
  };
  Push push(const TokenOutput& output);
  /// Ends the request with an error, behind the tokens that are in already. The first error stays.
  Push fail(absl::Status error);

  /// Appends everything that is in to `outputs`; returns the error the request ended with, if it did.
  absl::Status drain(std::vector<TokenOutput>& outputs);
  /// The consumer's own unwritten bytes count as unread too.
  void hold(size_t bytes);
  void release(size_t bytes);
  /// The consumer wants nothing more.
  void close();

  size_t unread_bytes() const;

 private:
  Push wake();
  static size_t bytes_of(const TokenOutput& output);

  const size_t limit_bytes_;
  mutable std::mutex mutex_;
  std::vector<TokenOutput> outputs_;
  absl::Status error_;
  size_t output_bytes_ = 0;  // of outputs_
  size_t held_bytes_ = 0;
  bool told_ = false;
  bool closed_ = false;
};

/// A request as leader and delivery see it.
class RequestSink {
 public:
  explicit RequestSink(size_t limit_bytes = Outbox::kDefaultLimitBytes) : outbox(limit_bytes) {}
  virtual ~RequestSink() = default;
  /// The outbox has something new. Called by a delivery thread, never by the engine's.
  virtual void deliver() = 0;

  Outbox outbox;
  RequestTimes times;
  /// Whose request it is, for the queue's bound per client; empty: nobody's. Fixed when it is submitted.
  std::string client;
  struct EngineSide {
    int64_t collective_before_ns = 0;    // at the start of its first step
    std::vector<int64_t> last_token_ns;  // by sample
  };
  EngineSide engine_side;  // the engine's thread only
};

}  // namespace trireme::worker
