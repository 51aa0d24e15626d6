#pragma once
// A thread that ends the process when something can no longer be waited for: a call into a library that has
// no deadline of its own, a connection that broke behind our back.

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

namespace trireme {

/// Asks `look` again and again, `interval` apart, from its own thread, until it is destroyed. Where the
/// answer is not empty, writes it to standard error as one line and ends the process with _exit(70): the
/// job's end frees the other ranks.
class ProcessGuard {
 public:
  ProcessGuard(std::chrono::milliseconds interval, std::function<std::string()> look);
  /// Says `late` when it is not destroyed within `deadline`.
  ProcessGuard(std::chrono::milliseconds deadline, const std::string& late);
  ~ProcessGuard();
  ProcessGuard(const ProcessGuard&) = delete;
  ProcessGuard& operator=(const ProcessGuard&) = delete;

 private:
  void run(std::chrono::milliseconds interval);

  std::function<std::string()> look_;
  std::mutex mutex_;
  std::condition_variable stopped_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace trireme
