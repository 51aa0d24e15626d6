#pragma once
// Operations of kernels/backend.h on device memory: shapes have been checked there. Enqueued on `stream`, f32
// inside, activations in f32, bf16 or f16. A row's bits depend on that row alone.

#include <cuda_runtime.h>

#include "kernels/tensor.h"

namespace trireme::cuda {

/// out = x * rsqrt(mean(x^2) + eps) * weight by rows. weight: f32 [cols]. out may be x.
void rms_norm(cudaStream_t stream, const Tensor& x, const Tensor& weight, float eps, const Tensor& out);
/// residual += x, rounded to its dtype, then out = rms_norm(residual). out may be x.
void add_rms_norm(cudaStream_t stream, const Tensor& x, const Tensor& residual, const Tensor& weight,
                  float eps, const Tensor& out);
/// x += y.
void add(cudaStream_t stream, const Tensor& x, const Tensor& y);
/// out[:, i] = silu(gate_up[:, i]) * gate_up[:, out.cols + i].
void silu_mul(cudaStream_t stream, const Tensor& gate_up, const Tensor& out);
/// out[t, :] = table[ids[t] - first_row, :], zeros where there is no such row. table: [rows, cols] of any
/// float dtype.
void embedding(cudaStream_t stream, const Tensor& ids, const Tensor& table, int64_t first_row,
               const Tensor& out);
/// out[i, :] = x[row_ids[i], :].
void gather_rows(cudaStream_t stream, const Tensor& x, const Tensor& row_ids, const Tensor& out);

}  // namespace trireme::cuda
