#include "launch/client/progress_bar.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <utility>

#include "absl/strings/str_format.h"

namespace trireme::client {

ProgressBar::ProgressBar(std::function<std::string()> line) : line_(std::move(line)) {
  if (isatty(STDERR_FILENO) != 0) thread_ = std::thread([this] { run(); });
}

ProgressBar::~ProgressBar() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void ProgressBar::run() {
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, std::chrono::milliseconds(200), [this] { return over_; })) {
    std::fprintf(stderr, "\r%-79.79s", line_().c_str());
    std::fflush(stderr);
  }
  std::fprintf(stderr, "\r%79s\r", "");
  std::fflush(stderr);
}

std::string bar(size_t done, size_t all, size_t width) {
  done = std::min(done, all);
  const size_t filled = all == 0 ? 0 : done * width / all;
  std::string inside = std::string(filled, '=') + (filled < width ? ">" : "");
  inside.resize(width, ' ');
  return absl::StrFormat("[%s] %d %%", inside, all == 0 ? 0 : done * 100 / all);
}

}  // namespace trireme::client
