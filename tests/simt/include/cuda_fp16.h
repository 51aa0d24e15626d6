#pragma once
// Stands in for the CUDA Toolkit's header of this name. Conversions round to nearest even, as PTX's cvt.rn.

#include <cuda_runtime.h>

struct __half {
  uint16_t bits;
};
struct alignas(4) __half2 {
  __half x, y;
};

inline float __half2float(__half value) { return static_cast<float>(std::bit_cast<_Float16>(value.bits)); }
inline __half __float2half_rn(float value) { return {std::bit_cast<uint16_t>(static_cast<_Float16>(value))}; }
inline __half __float2half(float value) { return __float2half_rn(value); }
inline float2 __half22float2(__half2 value) { return {__half2float(value.x), __half2float(value.y)}; }
inline __half2 __float22half2_rn(float2 value) {
  return {__float2half_rn(value.x), __float2half_rn(value.y)};
}
inline __half2 __floats2half2_rn(float x, float y) { return __float22half2_rn({x, y}); }
