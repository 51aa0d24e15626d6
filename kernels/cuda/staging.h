#pragma once
// Small things on their way between host and device, in the order of a stream: through pinned memory, so that
// the host does not wait for copies, and its own memory is free again at once.

#include <cstddef>
#include <vector>

#include "kernels/cuda/runtime.h"

namespace trireme::cuda {

/// A ring of pinned memory with a twin on the device. One thread at a time.
class Staging {
 public:
  explicit Staging(const Stream& stream) : stream_(stream) {}

  /// Room for uploads of `bytes` each, and for as much between two waits on the way back. RESOURCE_EXHAUSTED.
  absl::Status reserve(size_t bytes);

  /// What the host writes now, and where the device finds it after commit().
  struct Slot {
    char* host = nullptr;
    char* device = nullptr;
    size_t bytes = 0;
  };
  /// 16-byte aligned; committed before the next one is taken. The device's side holds it for all that is
  /// enqueued before the next commit(). Grows where `bytes` are more than were reserved, waiting for the
  /// stream.
  Slot take(size_t bytes);
  void commit(const Slot& slot);

  /// Copies of any size. `source` may change when this returns.
  void copy_to_device(void* destination, const void* source, size_t bytes);
  /// `destination` is filled by deliver().
  void copy_to_host(void* destination, const void* source, size_t bytes);
  /// Call when the stream has come to its end.
  void deliver();

 private:
  struct Half {
    Memory pinned, device;
    Event last_use;
  };
  struct Delivery {
    void* destination;
    const void* source;
    size_t bytes;
  };
  void grow(size_t bytes);

  const Stream& stream_;
  Half halves_[2];  // each slot lies in one; the next one in the other when it does not fit
  int half_ = 0;
  size_t used_ = 0;  // of that half
  Memory returns_;
  size_t returned_ = 0;  // bytes of returns_ that wait for their delivery
  std::vector<Delivery> deliveries_;
};

}  // namespace trireme::cuda
