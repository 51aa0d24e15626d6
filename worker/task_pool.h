#pragma once
// A few threads for work that must not hold up RPC threads: tokenizing, above all.

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace trireme::worker {

/// First come, first served; the queue is bounded. Any thread may post.
class TaskPool {
 public:
  TaskPool(int num_threads, size_t max_queued);
  /// Runs what is queued, then ends.
  ~TaskPool();
  TaskPool(const TaskPool&) = delete;
  TaskPool& operator=(const TaskPool&) = delete;

  /// False when the queue is full; then nothing happens.
  bool try_post(std::function<void()> task);

 private:
  void run();

  const size_t max_queued_;
  std::mutex mutex_;
  std::condition_variable posted_;
  std::deque<std::function<void()>> queue_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace trireme::worker
