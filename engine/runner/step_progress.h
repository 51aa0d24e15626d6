#pragma once

#include <atomic>
#include <cstdint>

namespace trireme {

/// Proof of life of a step, for the watchdog: written by the engine's thread, read by any. The counter moves
/// with each layer and each collective, so a long prefill is no false alarm.
struct StepProgress {
  std::atomic<uint64_t> counter{0};
  std::atomic<bool> running{false};      // a step is being computed, or its plan sent
  std::atomic<uint64_t> step{0};         // number of that step
  std::atomic<int32_t> layer{-1};        // -1: outside the layers
  std::atomic<uint64_t> collectives{0};  // numbered from 1 since the start; equal on all ranks that keep up

  void move() { counter.fetch_add(1, std::memory_order_relaxed); }
};

}  // namespace trireme
