#pragma once
// Writes a replica's traces beside its steps.

#include <atomic>
#include <functional>
#include <thread>
#include <utility>
#include <vector>

#include "engine/runner/collective_comparison.h"

namespace trireme::worker {

/// Hands timelines to `write`, now or on a thread of its own, one at a time. One thread calls it.
class TraceKeeper {
 public:
  using Write = std::function<void(const std::vector<RankTimeline>&)>;
  explicit TraceKeeper(Write write) : write_(std::move(write)) {}
  ~TraceKeeper() { finish(); }
  TraceKeeper(const TraceKeeper&) = delete;
  TraceKeeper& operator=(const TraceKeeper&) = delete;

  bool busy() const { return busy_.load(); }
  /// Not while busy().
  void write_beside(std::vector<RankTimeline> ranks);
  /// When what is being written is there.
  void write_now(const std::vector<RankTimeline>& ranks);

 private:
  void finish() {
    if (thread_.joinable()) thread_.join();
  }

  const Write write_;
  std::atomic<bool> busy_{false};
  std::thread thread_;
};

}  // namespace trireme::worker
