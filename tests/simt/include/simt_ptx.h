#pragma once
// Plain twins of the instructions that kernels/cuda/ptx.cuh wraps. Fragments have the layout of PTX ISA 9.0,
// sections "Matrix fragments for mma.m16n8k16" and "ldmatrix".

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <sched.h>

namespace simt {

inline float element(__nv_bfloat16, uint16_t bits) { return __bfloat162float({bits}); }
inline float element(__half, uint16_t bits) { return __half2float({bits}); }

/// One lane's part of 16 x 16 (a), 16 x 8 (b) and 16 x 8 (c) elements.
struct MmaOperands {
  uint32_t a[4], b[2];
  float c[4];
};

/// Element (row, col) of a, col-major pairs included: two to a register.
inline uint16_t half_of(uint32_t word, int index) { return static_cast<uint16_t>(word >> (16 * index)); }

template <typename T>
void mma_m16n8k16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                  const std::source_location& where) {
  MmaOperands mine;
  std::memcpy(mine.a, a, sizeof a);
  std::memcpy(mine.b, b, sizeof b);
  const unsigned char* all = warp_exchange(0xffffffffu, &mine, sizeof mine, "mma.m16n8k16", where);
  const auto lane = [&](int index) {
    MmaOperands operands;
    std::memcpy(&operands, all + static_cast<size_t>(index) * kMaxExchangeBytes, sizeof operands);
    return operands;
  };
  const int group = static_cast<int>(lane_id()) / 4, thread = static_cast<int>(lane_id()) % 4;
  for (int i = 0; i < 4; ++i) {
    const int row = group + i / 2 * 8, col = thread * 2 + i % 2;
    double sum = c[i];
    for (int k = 0; k < 16; ++k) {
      // Registers 0 and 2 of a hold rows 0 to 7, 1 and 3 rows 8 to 15; 2 and 3 the upper half of k.
      const uint32_t left = lane(row % 8 * 4 + k % 8 / 2).a[row / 8 + k / 8 * 2];
      const uint32_t right = lane(col * 4 + k % 8 / 2).b[k / 8];
      sum += double{element(T{}, half_of(left, k % 2))} * element(T{}, half_of(right, k % 2));
    }
    c[i] = static_cast<float>(sum);
  }
}

/// Four 8 x 8 matrices; lane 8 m + r points to row r of matrix m.
inline void ldmatrix_x4(uint32_t (&out)[4], const void* row, bool transposed,
                        const std::source_location& where) {
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0) fail("ldmatrix: the address of a row is no multiple of 16");
  const unsigned char* all = warp_exchange(0xffffffffu, row, 16, "ldmatrix", where);
  const int group = static_cast<int>(lane_id()) / 4, thread = static_cast<int>(lane_id()) % 4;
  for (int m = 0; m < 4; ++m) {
    uint16_t pair[2];
    for (int i = 0; i < 2; ++i) {
      const int r = transposed ? thread * 2 + i : group, c = transposed ? group : thread * 2 + i;
      std::memcpy(&pair[i],
                  all + static_cast<size_t>(m * 8 + r) * kMaxExchangeBytes + static_cast<size_t>(c) * 2, 2);
    }
    out[m] = pair[0] | static_cast<uint32_t>(pair[1]) << 16;
  }
}

/// Writes `value` for threads of any device.
inline void publish(uint32_t* flag, uint32_t value) {
  __atomic_store_n(flag, value, __ATOMIC_RELEASE);
  if (OtherDevices* const others = other_devices()) others->told(flag, value);
}

/// A wait for another device, whose threads are not of this grid: the host's thread gives its turn away.
inline void wait_until_reached(uint32_t* flag, uint32_t value) {
  const auto is_reached = [&] {
    return static_cast<int32_t>(__atomic_load_n(flag, __ATOMIC_ACQUIRE) - value) >= 0;
  };
  if (OtherDevices* const others = other_devices(); others != nullptr && !is_reached()) {
    others->awaited(flag, value);
    if (!is_reached()) fail("waits for a number that nobody publishes");
  }
  while (!is_reached()) sched_yield();
}

}  // namespace simt
