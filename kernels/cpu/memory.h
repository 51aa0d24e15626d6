#pragma once
// Host memory of the CPU backend, and how much of it is left.

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace trireme::cpu {

/// Zeroed pages, freed with the object. Large ones ask for huge pages and are touched by the pool, each
/// thread its share, so that on NUMA hosts a share lies near the thread that reads it.
class HostMemory {
 public:
  HostMemory() = default;
  HostMemory(HostMemory&& other) noexcept;
  HostMemory& operator=(HostMemory&& other) noexcept;
  HostMemory(const HostMemory&) = delete;
  HostMemory& operator=(const HostMemory&) = delete;
  ~HostMemory();

  /// RESOURCE_EXHAUSTED with wanted and available bytes. `what` names the purpose in the message.
  static absl::StatusOr<HostMemory> allocate(size_t bytes, int threads, const std::string& what);

  /// The same with small pages that nobody touches: they take no memory before they are written.
  static absl::StatusOr<HostMemory> allocate_sparse(size_t bytes, const std::string& what);

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  /// Gives up ownership; release with HostMemory::free.
  void* detach();
  static void free(void* data, size_t bytes);

 private:
  static absl::StatusOr<HostMemory> map(size_t bytes, const std::string& what);

  void* data_ = nullptr;
  size_t bytes_ = 0;
};

/// Scratch that grows when first needed and then stays.
class Workspace {
 public:
  /// At least `bytes`, 64-byte aligned; the contents of earlier calls are lost. Aborts when memory is out.
  void* get(size_t bytes, int threads);
  /// Grows now. RESOURCE_EXHAUSTED when it cannot.
  absl::Status reserve(size_t bytes, int threads);
  size_t bytes() const { return memory_.bytes(); }

 private:
  HostMemory memory_;
};

/// The least of MemAvailable (/proc/meminfo) and of what every memory cgroup (v1 or v2) above this process
/// still allows, its reclaimable file pages counted as free. `root` stands before /proc and /sys, for tests.
int64_t available_memory_bytes(const std::string& root = "");

}  // namespace trireme::cpu
