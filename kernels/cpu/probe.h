#pragma once
// What the machine can do, measured: the ceilings that benchmarks set their figures beside.

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "kernels/cpu/memory.h"

namespace trireme::cpu {

/// Reads a buffer larger than the caches with all threads, each its own contiguous part.
class ReadBandwidthProbe {
 public:
  /// RESOURCE_EXHAUSTED when `bytes` cannot be had.
  static absl::StatusOr<ReadBandwidthProbe> create(size_t bytes, int threads);
  /// GB/s (1e9 bytes) of one pass over the whole buffer.
  double measure() const;

 private:
  ReadBandwidthProbe(HostMemory memory, int threads);
  HostMemory memory_;
  int threads_;
};

}  // namespace trireme::cpu
