#pragma once

#include <atomic>
#include <cstdint>

namespace trireme {

/// Proof of life of a step, for the watchdog: written by the engine's thread alone, which therefore needs no
/// locked instruction to count, and read by any. The counter moves with each layer and each collective, so a
/// long prefill is no false alarm.
struct StepProgress {
  std::atomic<uint64_t> counter{0};
  std::atomic<bool> running{false};      // a step is being computed, or its plan sent
  std::atomic<uint64_t> step{0};         // number of that step
  std::atomic<int32_t> layer{-1};        // -1: outside the layers
  std::atomic<uint64_t> collectives{0};  // numbered from 1 since the start; equal on all ranks that keep up

  void move() { add(counter, 1); }
  /// The number of the last of `more` collectives.
  uint64_t count_collectives(uint64_t more) { return add(collectives, more); }

 private:
  static uint64_t add(std::atomic<uint64_t>& to, uint64_t more) {
    const uint64_t sum = to.load(std::memory_order_relaxed) + more;
    to.store(sum, std::memory_order_relaxed);
    return sum;
  }
};

}  // namespace trireme
