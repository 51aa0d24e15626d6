#pragma once
// Elements of the three activation types, alone and in groups that one instruction loads.

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/check.h"
#include "kernels/tensor.h"

namespace trireme::cuda {

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }
__device__ __forceinline__ float to_float(__half value) { return __half2float(value); }

template <typename T>
__device__ __forceinline__ T from_float(float value);
template <>
__device__ __forceinline__ float from_float<float>(float value) {
  return value;
}
template <>
__device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}
template <>
__device__ __forceinline__ __half from_float<__half>(float value) {
  return __float2half_rn(value);
}

/// kCount neighbours, moved as one.
template <typename T, int kCount>
struct alignas(sizeof(T) * kCount) Pack {
  T values[kCount];
};

template <typename T, int kCount>
__device__ __forceinline__ void load(const T* source, float (&out)[kCount]) {
  const Pack<T, kCount> pack = *reinterpret_cast<const Pack<T, kCount>*>(source);
#pragma unroll
  for (int i = 0; i < kCount; ++i) out[i] = to_float(pack.values[i]);
}

template <typename T, int kCount>
__device__ __forceinline__ void store(T* destination, const float (&in)[kCount]) {
  Pack<T, kCount> pack;
#pragma unroll
  for (int i = 0; i < kCount; ++i) pack.values[i] = from_float<T>(in[i]);
  *reinterpret_cast<Pack<T, kCount>*>(destination) = pack;
}

/// Elements of T in 16 bytes.
template <typename T>
inline constexpr int kPackWidth = 16 / static_cast<int>(sizeof(T));

/// Whether rows of `tensor` may be read `width` elements at a time.
inline bool rows_aligned(const Tensor& tensor, int width) {
  const size_t bytes = dtype_bytes(tensor.dtype) * static_cast<size_t>(width);
  return tensor.cols % width == 0 && (tensor.rows <= 1 || tensor.row_stride % width == 0) &&
         reinterpret_cast<uintptr_t>(tensor.data) % bytes == 0;
}

/// Calls `body` with a value of the element type of `dtype`.
template <typename Body>
void with_element_type(DType dtype, Body&& body) {
  switch (dtype) {
    case DType::f32:
      return body(float{});
    case DType::bf16:
      return body(__nv_bfloat16{});
    case DType::f16:
      return body(__half{});
    case DType::i32:
      break;
  }
  TRIREME_CHECK(false && "activations are f32, bf16 or f16");
}

}  // namespace trireme::cuda
