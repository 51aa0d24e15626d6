#pragma once
// Conversions between the floating-point types, round-to-nearest-even; NaN stays NaN.

#include <bit>
#include <cstdint>

#include "kernels/dtype.h"

namespace trireme::cpu {

inline float bf16_to_f32(uint16_t value) { return std::bit_cast<float>(static_cast<uint32_t>(value) << 16); }

inline uint16_t f32_to_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

/// Converts `count` contiguous elements between f32, f16 and bf16; to f32 or bf16 only.
void convert(const void* source, DType source_dtype, void* destination, DType destination_dtype,
             int64_t count);

}  // namespace trireme::cpu
