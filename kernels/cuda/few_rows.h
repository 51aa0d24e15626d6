#pragma once
// Products with few rows of activations: what decoding at small batch sizes consists of.

#include <cuda_runtime.h>

#include "kernels/tensor.h"

namespace trireme::cuda {

inline constexpr int kMaxFewRows = 8;
/// Output features from which a warp takes two, or with five rows of activations and more four, of them.
inline constexpr int64_t kTwoFeatures = 4096, kFourFeatures = 16384;

/// out = x · weight^T + bias for at most kMaxFewRows rows. x: [rows, in], weight: [out, in] of x's dtype with
/// contiguous rows, bias: f32 [out] or empty, out: of x's dtype or f32. The weight is read once, and bounds
/// the time. A row's sums are taken in an order that depends on `in` alone.
void matmul_few_rows(cudaStream_t stream, const Tensor& x, const Tensor& weight, const Tensor& bias,
                     const Tensor& out);

}  // namespace trireme::cuda
