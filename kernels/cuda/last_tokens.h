#pragma once
// What a step leaves for the next one on the device; see Backend for the meaning.

#include <cuda_runtime.h>

#include "kernels/tensor.h"

namespace trireme::cuda {

/// Backend::resolve_last_tokens().
void resolve_last_tokens(cudaStream_t stream, const Tensor& last_tokens, const Tensor& ids);
/// Backend::keep_last_tokens().
void keep_last_tokens(cudaStream_t stream, const Tensor& ids, const Tensor& slots, const Tensor& last_tokens);

}  // namespace trireme::cuda
