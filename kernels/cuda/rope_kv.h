#pragma once
// What the attention block does to q, k and v before it attends.

#include <cuda_runtime.h>

#include "kernels/backend.h"

namespace trireme::cuda {

/// Keys and values of one layer on the device: each [num_blocks, num_kv_heads, block_size, head_dim] of the
/// activations' dtype, so that a head's keys of one block are one piece of memory.
struct KvLayer {
  void* keys = nullptr;
  void* values = nullptr;
  int num_kv_heads = 0, head_dim = 0, block_size = 0;
};

/// Backend::rope_and_store_kv(): q is rotated in place; k and v are left as they were. head_dim at most 256.
void rope_and_store_kv(cudaStream_t stream, const Tensor& q, const Tensor& k, const Tensor& v,
                       const RaggedBatch& batch, const RopeSpec& rope, const QkNormSpec& norm,
                       const KvLayer& cache);

}  // namespace trireme::cuda
