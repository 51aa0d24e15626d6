#pragma once
// CUDA's handles as objects, and what happens when a call of the runtime fails.

#include <cuda_runtime.h>

#include <cstddef>
#include <string>
#include <utility>

#include "absl/status/statusor.h"

namespace trireme::cuda {

/// Ends the process with one line: the place, the host, process_name(), `what` and the error's name. After a
/// CUDA error nothing on the device can be trusted, and most errors stay until the process ends: there is no
/// retry.
void check(cudaError_t error, const char* what, const char* file, int line);

#define CUDA_CHECK(expression) ::trireme::cuda::check((expression), #expression, __FILE__, __LINE__)

/// A queue of the device's work, apart from the default stream.
class Stream {
 public:
  Stream() { CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  ~Stream() { CUDA_CHECK(cudaStreamDestroy(stream_)); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  operator cudaStream_t() const { return stream_; }
  /// Waits until all that was enqueued has finished.
  void synchronize() const { CUDA_CHECK(cudaStreamSynchronize(stream_)); }

 private:
  cudaStream_t stream_ = nullptr;
};

/// A place in a stream. Without a record() there is nothing to wait for.
class Event {
 public:
  /// Only timed events can be asked how far apart they are; the others cost less.
  explicit Event(bool timed = false) {
    CUDA_CHECK(cudaEventCreateWithFlags(&event_, timed ? cudaEventDefault : cudaEventDisableTiming));
  }
  ~Event() { CUDA_CHECK(cudaEventDestroy(event_)); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  operator cudaEvent_t() const { return event_; }
  void record(cudaStream_t stream) { CUDA_CHECK(cudaEventRecord(event_, stream)); }
  /// In a stream that is captured: each launch of the graph records it.
  void record_at_launches(cudaStream_t stream) {
    CUDA_CHECK(cudaEventRecordWithFlags(event_, stream, cudaEventRecordExternal));
  }
  /// Waits, on the host, until the device has come here.
  void synchronize() const { CUDA_CHECK(cudaEventSynchronize(event_)); }
  /// Milliseconds since `earlier`; both timed, recorded and passed.
  float milliseconds_since(const Event& earlier) const {
    float milliseconds = 0;
    CUDA_CHECK(cudaEventElapsedTime(&milliseconds, earlier.event_, event_));
    return milliseconds;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

/// Memory of the device, or of the host where the device can copy from and to it at any time ("pinned").
/// Contents are undefined at first. Nothing enqueued may use it when it is freed.
class Memory {
 public:
  enum class Place { device, pinned };

  Memory() = default;
  Memory(Memory&& other) noexcept { swap(other); }
  Memory& operator=(Memory&& other) noexcept {
    Memory old(std::move(*this));
    swap(other);
    return *this;
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() { free(data_, place_); }

  /// At least 256-byte aligned. RESOURCE_EXHAUSTED with wanted and available bytes; `what` names the purpose.
  static absl::StatusOr<Memory> allocate(Place place, size_t bytes, const std::string& what);

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  /// Gives up ownership; release with Memory::free.
  void* detach();
  static void free(void* data, Place place);

 private:
  void swap(Memory& other) {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(place_, other.place_);
  }
  void* data_ = nullptr;
  size_t bytes_ = 0;
  Place place_ = Place::device;
};

/// Memory of the device that grows when first needed and then stays; what it held is lost as it grows.
class Scratch {
 public:
  /// At least `bytes`. Waits for `stream` where it has to grow; out of memory, the process ends.
  void* get(size_t bytes, const Stream& stream);
  /// Grows now. RESOURCE_EXHAUSTED when it cannot.
  absl::Status reserve(size_t bytes, const Stream& stream, const std::string& what);
  /// From now on growing is a programmer's error: captured operations know the address.
  void hold() { held_ = true; }
  void* data() const { return memory_.data(); }
  size_t bytes() const { return memory_.bytes(); }

 private:
  Memory memory_;
  bool held_ = false;
};

/// Bytes of the device that no allocation has: cudaMemGetInfo().
int64_t free_device_bytes();

}  // namespace trireme::cuda
