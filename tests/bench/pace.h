#pragma once
// How far streams may run ahead of their clients, over process borders.

#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <ctime>
#include <new>

namespace trireme::bench {

/// Lies in memory that all processes share. A producer gives stream i its next token only while fewer than
/// `window` of its tokens are on their way, and gives a whole batch at once, as an engine's step does. With a
/// window of 1 each token is a message of its own, whatever the machine does meanwhile.
class Pace {
 public:
  static constexpr int kMostStreams = 1024;

  /// In memory that forked processes share; never unmapped.
  static Pace* create() {
    void* memory = mmap(nullptr, sizeof(Pace), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? nullptr : new (memory) Pace;
  }

  // The client's side.
  void set(int num_streams, uint32_t window) {
    for (auto& count : received_) count = 0;
    num_streams_ = num_streams;
    window_ = window;
  }
  void receive(int stream, uint32_t tokens) {
    received_[stream].fetch_add(tokens, std::memory_order_relaxed);
    ticks_.fetch_add(1);
    if (waiting_ != 0) futex(FUTEX_WAKE, 1, nullptr);
  }

  // The producer's side, one thread.
  bool may_send(int stream, uint32_t sent) const {
    return sent < received_[stream].load(std::memory_order_relaxed) + window_;
  }
  /// A step is worth its while when half the streams take part.
  int batch() const { return (num_streams_ + 1) / 2; }
  uint32_t ticks() const { return ticks_; }
  /// Until something has been received since ticks() was `seen`, or for `time`.
  void wait(uint32_t seen, std::chrono::microseconds time) {
    const timespec limit{time.count() / 1'000'000, time.count() % 1'000'000 * 1000};
    waiting_ = 1;
    if (ticks_ == seen) futex(FUTEX_WAIT, seen, &limit);
    waiting_ = 0;
  }

  std::atomic<int> port{0};  // of whoever serves at this end; 0 until it does

 private:
  void futex(int operation, uint32_t value, const timespec* limit) {
    syscall(SYS_futex, reinterpret_cast<uint32_t*>(&ticks_), operation, value, limit, nullptr, 0);
  }

  std::atomic<uint32_t> ticks_{0}, waiting_{0}, window_{1};
  std::atomic<int> num_streams_{0};
  std::atomic<uint32_t> received_[kMostStreams] = {};
};

}  // namespace trireme::bench
