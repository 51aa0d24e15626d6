#include "tests/kernels/cuda/device_memory.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "tests/kernels/cuda/device_tensor.h"

namespace trireme::testing {
namespace {

// More than a row of threads, or the queries of a few sequences, lie beside a tensor of these tests.
constexpr size_t kRoomBytes = 32 * 1024;
constexpr size_t kAlign = 16;

Surroundings::Kind around = Surroundings::Kind::none;
std::atomic<bool> damaged{false};

size_t round_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

class ExactMemory final : public DeviceMemory {
 public:
  explicit ExactMemory(size_t bytes) { EXPECT_EQ(cudaMalloc(&data_, bytes), cudaSuccess); }
  ~ExactMemory() override { cudaFree(data_); }
};

std::vector<unsigned char> room_of(DType dtype) {
  static uint32_t num_rooms = 0;
  std::mt19937 random(++num_rooms);
  std::vector<unsigned char> bytes(kRoomBytes);
  for (size_t i = 0; i < kRoomBytes; i += dtype_bytes(dtype)) {
    const auto number = static_cast<int32_t>(random() >> 8);
    const int32_t integer = number % 8 - 4;
    if (dtype == DType::i32)
      std::memcpy(bytes.data() + i, &integer, sizeof integer);
    else
      write_element(dtype, bytes.data() + i, 1000.0f + static_cast<float>(number % 8000));
  }
  return bytes;
}

class RoomyMemory final : public DeviceMemory {
 public:
  RoomyMemory(DType dtype, size_t bytes) : before_(room_of(dtype)), after_(room_of(dtype)) {
    void* memory = nullptr;
    EXPECT_EQ(cudaMalloc(&memory, 2 * kRoomBytes + bytes), cudaSuccess);
    memory_ = static_cast<unsigned char*>(memory);
    data_ = memory_ + kRoomBytes;
    end_ = memory_ + kRoomBytes + bytes;
    copy_and_wait(memory_, before_.data(), kRoomBytes);
    copy_and_wait(end_, after_.data(), kRoomBytes);
  }
  ~RoomyMemory() override {
    if (!is_as_it_was(before_, memory_) || !is_as_it_was(after_, end_)) damaged = true;
    cudaFree(memory_);
  }

 private:
  static bool is_as_it_was(const std::vector<unsigned char>& room, const unsigned char* place) {
    std::vector<unsigned char> now(kRoomBytes);
    copy_and_wait(now.data(), place, kRoomBytes);
    return now == room;
  }

  std::vector<unsigned char> before_, after_;
  unsigned char* memory_ = nullptr;
  unsigned char* end_ = nullptr;
};

/// Of the processor, which is the device.
class WalledMemory final : public DeviceMemory {
 public:
  explicit WalledMemory(size_t bytes) {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t used = round_up(bytes, kAlign), before_wall = round_up(used, page);
    mapped_bytes_ = before_wall + page;
    mapped_ = mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT_NE(mapped_, MAP_FAILED);
    auto* const memory = static_cast<unsigned char*>(mapped_);
    EXPECT_EQ(mprotect(memory + before_wall, page, PROT_NONE), 0);
    data_ = memory + (before_wall - used);
  }
  ~WalledMemory() override { munmap(mapped_, mapped_bytes_); }

 private:
  void* mapped_ = nullptr;
  size_t mapped_bytes_ = 0;
};

}  // namespace

Surroundings::Surroundings(Kind kind) { around = kind; }
Surroundings::~Surroundings() { around = Kind::none; }
bool Surroundings::take_damage() { return damaged.exchange(false); }

std::unique_ptr<DeviceMemory> make_device_memory(DType dtype, size_t bytes) {
  if (around == Surroundings::Kind::room) return std::make_unique<RoomyMemory>(dtype, bytes);
  if (around == Surroundings::Kind::wall) return std::make_unique<WalledMemory>(bytes);
  return std::make_unique<ExactMemory>(bytes);
}

void write_element(DType dtype, void* element, float value) {
  if (dtype == DType::f32) *static_cast<float*>(element) = value;
  if (dtype == DType::bf16) *static_cast<__nv_bfloat16*>(element) = __float2bfloat16(value);
  if (dtype == DType::f16) *static_cast<__half*>(element) = __float2half(value);
}

void copy_and_wait(void* destination, const void* source, size_t bytes) {
  EXPECT_EQ(cudaMemcpyAsync(destination, source, bytes, cudaMemcpyDefault, nullptr), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(nullptr), cudaSuccess);
}

}  // namespace trireme::testing
