#pragma once
// Carries outputs from the engine's thread to the RPC side.

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "worker/outbox.h"

namespace trireme::worker {

/// One thread that calls deliver() on every request whose outbox has something new: detokenizing, stop
/// strings and the writes happen there, beside the next step. A request is in the queue at most once, so the
/// queue is bounded by the number of requests.
class Delivery {
 public:
  Delivery();
  /// Delivers what was posted, then ends.
  ~Delivery();
  Delivery(const Delivery&) = delete;
  Delivery& operator=(const Delivery&) = delete;

  /// Takes all of `sinks` and leaves it empty. One lock and one wake-up per call. Any thread.
  void post(std::vector<std::shared_ptr<RequestSink>>& sinks);
  /// Spent in deliver() since the start. Any thread.
  int64_t busy_ns() const { return busy_ns_.load(std::memory_order_relaxed); }

 private:
  void run();

  std::mutex mutex_;
  std::condition_variable posted_;
  std::vector<std::shared_ptr<RequestSink>> queue_;
  bool stopping_ = false;
  std::atomic<int64_t> busy_ns_{0};
  std::thread thread_;
};

}  // namespace trireme::worker
