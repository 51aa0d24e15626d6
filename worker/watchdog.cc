#include "worker/watchdog.h"

#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"
#include "worker/exit_code.h"

namespace trireme::worker {

Watchdog::Watchdog(const std::atomic<uint64_t>& counter, const std::atomic<bool>& running,
                   std::chrono::milliseconds timeout, const std::string& who)
    : counter_(counter),
      running_(running),
      timeout_(timeout),
      line_begin_(absl::StrCat("trireme-worker: ", who, ": a step has stood still for ", timeout.count(),
                               " ms at progress ")),
      line_end_("; a peer or the device hangs, so this process ends (exit 70)\n") {
  if (timeout_.count() > 0) thread_ = std::thread([this] { run(); });
}

Watchdog::~Watchdog() {
  if (!thread_.joinable()) return;
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  stopped_.notify_one();
  thread_.join();
}

void Watchdog::run() {
  using Clock = std::chrono::steady_clock;
  const auto interval = std::clamp<std::chrono::milliseconds>(timeout_ / 10, std::chrono::milliseconds(5),
                                                              std::chrono::milliseconds(500));
  uint64_t last_counter = counter_.load();
  Clock::time_point last_look = Clock::now();
  Clock::duration stalled{};
  std::unique_lock lock(mutex_);
  while (!stopped_.wait_for(lock, interval, [this] { return stopping_; })) {
    const uint64_t counter = counter_.load();
    const auto now = Clock::now();
    // Time in which the whole process was stopped proves nothing about the step.
    stalled += std::min<Clock::duration>(now - last_look, 2 * interval);
    last_look = now;
    if (counter != last_counter || !running_.load()) {
      last_counter = counter;
      stalled = {};
    } else if (stalled >= timeout_) {
      give_up(counter);
    }
  }
}

void Watchdog::give_up(uint64_t counter) const {
  std::array<char, 20> digits;  // 2^64 has 20
  size_t first = digits.size();
  do {
    digits[--first] = static_cast<char>('0' + counter % 10);
    counter /= 10;
  } while (counter != 0);
  const std::array<iovec, 3> line = {{
      {const_cast<char*>(line_begin_.data()), line_begin_.size()},
      {digits.data() + first, digits.size() - first},
      {const_cast<char*>(line_end_.data()), line_end_.size()},
  }};
  // One call, so that lines of several ranks do not mix. Nobody is left to tell of a failure.
  [[maybe_unused]] const auto written = ::writev(STDERR_FILENO, line.data(), line.size());
  ::_exit(static_cast<int>(ExitCode::kInternal));
}

}  // namespace trireme::worker
