#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

namespace trireme {

/// Calls a function again and again on a thread of its own: for time limits that may be met a little late.
class Ticker {
 public:
  Ticker(std::chrono::milliseconds period, std::function<void(std::chrono::steady_clock::time_point)> tick);
  /// Waits for a call that runs.
  ~Ticker();
  Ticker(const Ticker&) = delete;
  Ticker& operator=(const Ticker&) = delete;

 private:
  void run();

  const std::chrono::milliseconds period_;
  const std::function<void(std::chrono::steady_clock::time_point)> tick_;
  std::mutex mutex_;
  std::condition_variable over_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace trireme
