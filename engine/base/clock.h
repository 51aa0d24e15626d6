#pragma once
// Time as a dependency: whoever waits or measures is given a clock, and tests give one that they turn
// themselves.

#include <atomic>
#include <chrono>

namespace trireme {

/// Monotonic, never the wall clock: a jump of the host's date must not end a lease or a deadline. Any thread.
class Clock {
 public:
  using Duration = std::chrono::steady_clock::duration;
  using TimePoint = std::chrono::steady_clock::time_point;

  virtual ~Clock() = default;
  virtual TimePoint now() const = 0;

 protected:
  Clock() = default;
  Clock(const Clock&) = delete;
  Clock& operator=(const Clock&) = delete;
};

class SteadyClock final : public Clock {
 public:
  TimePoint now() const override { return std::chrono::steady_clock::now(); }
};

/// Stands still until it is advanced.
class ManualClock final : public Clock {
 public:
  TimePoint now() const override { return TimePoint(Duration(ticks_.load(std::memory_order_acquire))); }
  /// Negative durations are not for a monotonic clock, and abort.
  void advance(Duration duration);

 private:
  std::atomic<Duration::rep> ticks_{0};
};

inline double milliseconds(Clock::Duration duration) {
  return std::chrono::duration<double, std::milli>(duration).count();
}

}  // namespace trireme
