#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

namespace trireme::client {

/// While alive, shows a line on standard error several times a second where that is a terminal; else nothing.
class ProgressBar {
 public:
  /// `line` is called by a thread of its own; at most 79 characters are shown.
  explicit ProgressBar(std::function<std::string()> line);
  /// Removes the line.
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

 private:
  void run();

  std::function<std::string()> line_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool over_ = false;
  std::thread thread_;
};

/// "[=========>          ] 45 %" of `width` characters between the brackets.
std::string bar(size_t done, size_t all, size_t width);

}  // namespace trireme::client
