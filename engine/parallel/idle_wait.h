#pragma once
// Waiting for a peer without burning a core: poll for a while, then sleep between polls, a little longer each
// time.

#include <sched.h>
#include <time.h>

#include <algorithm>
#include <chrono>

namespace trireme {

/// One wait. Polls for 200 us (giving the core away between polls), then sleeps 50 us growing to 1 ms, so an
/// idle rank costs a few percent of a core and wakes within about a millisecond.
class IdleWait {
 public:
  explicit IdleWait(std::chrono::milliseconds deadline)
      : begin_(std::chrono::steady_clock::now()), deadline_(begin_ + deadline) {}

  /// False when the deadline has passed.
  bool pause() {
    const auto now = std::chrono::steady_clock::now();
    if (now >= deadline_) return false;
    if (now - begin_ < kPoll) {
      sched_yield();
      return true;
    }
    const timespec time{0, sleep_ns_};
    nanosleep(&time, nullptr);
    sleep_ns_ = std::min(sleep_ns_ + sleep_ns_ / 4, kLongestSleepNs);
    return true;
  }

 private:
  static constexpr std::chrono::microseconds kPoll{200};
  static constexpr long kFirstSleepNs = 50'000;
  static constexpr long kLongestSleepNs = 1'000'000;
  std::chrono::steady_clock::time_point begin_, deadline_;
  long sleep_ns_ = kFirstSleepNs;
};

}  // namespace trireme
