#pragma once
// f16 and bf16 to f32, exactly.

#include <bit>
#include <cstdint>
#include <cstring>

#include "kernels/check.h"
#include "kernels/dtype.h"

namespace trireme {

inline float bf16_to_f32(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

inline float f16_to_f32(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16;
  const uint32_t exponent = bits >> 10 & 0x1f;
  const uint32_t mantissa = bits & 0x3ff;
  if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000 | mantissa << 13);
  if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;  // subnormal: exact in f32
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
}

/// `source` needs no alignment. Aborts for anything but f32, f16, bf16.
inline void convert_to_f32(const void* source, DType dtype, int64_t count, float* destination) {
  if (dtype == DType::f32) {
    std::memcpy(destination, source, static_cast<size_t>(count) * sizeof(float));
    return;
  }
  CHECK_NE(static_cast<int>(dtype), static_cast<int>(DType::i32));
  for (int64_t i = 0; i < count; ++i) {
    uint16_t bits = 0;
    std::memcpy(&bits, static_cast<const char*>(source) + 2 * i, sizeof(bits));
    destination[i] = dtype == DType::bf16 ? bf16_to_f32(bits) : f16_to_f32(bits);
  }
}

}  // namespace trireme
