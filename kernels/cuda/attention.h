#pragma once
// Causal grouped-query attention over the paged cache.

#include <cuda_runtime.h>

#include "kernels/backend.h"
#include "kernels/cuda/rope_kv.h"

namespace trireme::cuda {

/// What attention() wants beside its arguments.
struct AttentionWorkspace {
  float* data = nullptr;  // of the device
  size_t bytes = 0;
  int num_multiprocessors = 1;
  size_t max_shared_bytes = 0;  // that a block of the device may ask for
  /// Tokens that are attended over in one go before partial results are merged, a multiple of 32. Results
  /// depend on it (in their last bits), so it stays what it is for the life of a service.
  int segment_tokens = 256;
};

/// Bytes for `num_seqs` sequences of one query each and contexts of at most `max_context_len`, whose contexts
/// are shared out among blocks when there are few of them. With less, each is left to one block: slower, the
/// same bits.
size_t attention_workspace_bytes(int64_t num_seqs, int64_t num_heads, int64_t max_context_len, int head_dim,
                                 int segment_tokens);

/// The most that any batch can use whose longest context has `max_context_len` tokens.
size_t most_attention_workspace_bytes(int64_t num_kv_heads, int64_t max_context_len, int head_dim,
                                      int num_multiprocessors);

/// Shared memory of a block of the tensor-core kernel: 0 where there is none for this dtype and head_dim.
size_t tensor_attention_shared_bytes(DType dtype, int head_dim);

/// Backend::attention(). Tensor cores (FlashAttention-2's flow of data, arXiv:2307.08691) for bf16 and f16
/// with head_dim 64, 80, 96, 128 and 256, where a block may ask for the shared memory (133 KiB for 256: not
/// on compute capability 8.6, 8.9 and 12.0); a plain kernel for the rest, f32 and any head_dim up to 256. A
/// row's bits depend on neither its chunk nor its batch: each context is cut at the same places whoever works
/// on it, and the parts are merged in order.
void attention(cudaStream_t stream, const Tensor& q, const KvLayer& cache, const RaggedBatch& batch,
               const AttentionSpec& spec, const AttentionWorkspace& workspace, const Tensor& out);

}  // namespace trireme::cuda
