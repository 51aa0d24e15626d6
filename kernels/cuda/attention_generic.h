#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/backend.h"
#include "kernels/cuda/attention_arguments.cuh"

namespace trireme::cuda {

/// Attention without tensor cores, for any head_dim up to 256. T: float, __nv_bfloat16, __half.
template <typename T>
void attend_generic(cudaStream_t stream, const AttentionArguments<T>& a, const RaggedBatch& batch);

}  // namespace trireme::cuda
