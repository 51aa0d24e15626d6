#pragma once
// f16 and bf16 to f32, exactly, and back, rounded to nearest even. Plain loops, for what is not hot.

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

inline uint16_t f32_to_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>(bits >> 16 | 0x40);  // NaN stays one
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline uint16_t f32_to_f16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value), magnitude = bits & 0x7fffffff;
  const uint32_t sign = bits >> 16 & 0x8000;
  if (magnitude > 0x7f800000) return static_cast<uint16_t>(sign | 0x7e00);
  if (magnitude >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);  // rounds beyond 65504
  if (magnitude < 0x38800000) {  // below 2^-14: the sum's last bit is worth 2^-24, as a subnormal's is
    const float aligned = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(aligned) - std::bit_cast<uint32_t>(0.5f)));
  }
  const uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
  return static_cast<uint16_t>(sign | (rounded - (uint32_t{112} << 23)) >> 13);
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

/// To f32, f16 or bf16; aborts for anything else.
inline void convert_from_f32(const float* source, int64_t count, DType dtype, void* destination) {
  if (dtype == DType::f32) {
    std::memcpy(destination, source, static_cast<size_t>(count) * sizeof(float));
    return;
  }
  CHECK_NE(static_cast<int>(dtype), static_cast<int>(DType::i32));
  for (int64_t i = 0; i < count; ++i) {
    const uint16_t bits = dtype == DType::bf16 ? f32_to_bf16(source[i]) : f32_to_f16(source[i]);
    std::memcpy(static_cast<char*>(destination) + 2 * i, &bits, sizeof(bits));
  }
}

}  // namespace trireme
