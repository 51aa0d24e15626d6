#include "kernels/cuda/staging.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "kernels/check.h"

namespace trireme::cuda {
namespace {

constexpr size_t kAlign = 16;
constexpr size_t kLeastBytes = 64 * 1024;

size_t aligned(size_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

}  // namespace

absl::Status Staging::reserve(size_t bytes) {
  bytes = std::max(aligned(bytes), kLeastBytes);
  if (bytes <= returns_.bytes()) return absl::OkStatus();
  stream_.synchronize();
  deliver();
  const auto replace = [&](Memory& memory, Memory::Place place) {
    memory = Memory();
    absl::StatusOr<Memory> larger = Memory::allocate(place, bytes, "copies of step inputs and results");
    if (larger.ok()) memory = *std::move(larger);
    return larger.status();
  };
  for (Half& half : halves_) {
    for (const absl::Status& status :
         {replace(half.pinned, Memory::Place::pinned), replace(half.device, Memory::Place::device)}) {
      if (!status.ok()) return status;
    }
  }
  used_ = 0;
  return replace(returns_, Memory::Place::pinned);
}

void Staging::grow(size_t bytes) {
  const absl::Status status = reserve(bytes);
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  std::_Exit(70);
}

Staging::Slot Staging::take(size_t bytes) {
  bytes = aligned(bytes);
  if (bytes > returns_.bytes() || returns_.bytes() == 0) grow(bytes);
  if (used_ + bytes > halves_[half_].pinned.bytes()) {
    halves_[half_].last_use.record(stream_);
    half_ = 1 - half_;
    halves_[half_].last_use.synchronize();
    used_ = 0;
  }
  const Half& half = halves_[half_];
  const Slot slot{static_cast<char*>(half.pinned.data()) + used_,
                  static_cast<char*>(half.device.data()) + used_, bytes};
  used_ += bytes;
  return slot;
}

void Staging::commit(const Slot& slot) {
  CUDA_CHECK(cudaMemcpyAsync(slot.device, slot.host, slot.bytes, cudaMemcpyHostToDevice, stream_));
}

void Staging::copy_to_device(void* destination, const void* source, size_t bytes) {
  const size_t most = std::max(returns_.bytes(), kLeastBytes);
  for (size_t begin = 0; begin < bytes; begin += most) {
    const size_t count = std::min(most, bytes - begin);
    const Slot slot = take(count);
    std::memcpy(slot.host, static_cast<const char*>(source) + begin, count);
    CUDA_CHECK(cudaMemcpyAsync(static_cast<char*>(destination) + begin, slot.host, count,
                               cudaMemcpyHostToDevice, stream_));
  }
}

void Staging::copy_to_host(void* destination, const void* source, size_t bytes) {
  if (returns_.bytes() == 0) grow(bytes);
  for (size_t begin = 0; begin < bytes;) {
    if (returned_ == returns_.bytes()) {
      stream_.synchronize();
      deliver();
    }
    const size_t count = std::min(returns_.bytes() - returned_, bytes - begin);
    char* const at = static_cast<char*>(returns_.data()) + returned_;
    CUDA_CHECK(cudaMemcpyAsync(at, static_cast<const char*>(source) + begin, count, cudaMemcpyDeviceToHost,
                               stream_));
    deliveries_.push_back({static_cast<char*>(destination) + begin, at, count});
    begin += count;
    returned_ = std::min(aligned(returned_ + count), returns_.bytes());
  }
}

void Staging::deliver() {
  for (const Delivery& delivery : deliveries_)
    std::memcpy(delivery.destination, delivery.source, delivery.bytes);
  deliveries_.clear();
  returned_ = 0;
}

}  // namespace trireme::cuda
