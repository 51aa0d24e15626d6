#pragma once
// Who holds what: a pure function from inventory and model to a layout.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace trireme {

/// The shape of a model as far as the plan needs it.
struct ModelShape {
  std::string name;
  int hidden_size = 0;
  int intermediate_size = 0;
  int num_layers = 0;
  int num_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  int vocab_size = 0;
  bool tie_word_embeddings = false;
  int weight_dtype_bytes = 4;
  int kv_dtype_bytes = 4;
  int activation_dtype_bytes = 4;  // between operations; logits are f32
  bool qkv_bias = false, out_bias = false, mlp_bias = false, qk_norm = false;  // vectors, kept in f32
  // What follows only the planner knows; zero is a dense model whose weights are all of weight_dtype_bytes.
  int layer_weight_bits = 0;  // of the layers' matrices where they are quantized; embedding and head are not
  int scale_group = 0;        // quantized weights that share one 2-byte scale; 0: scales too few to count
  int num_experts = 0;        // gated MLPs beside each other, each of intermediate_size
  int experts_per_token = 0;
  int cache_layers = 0;          // layers that have a KV cache; 0: all
  int64_t state_elements = 0;    // f32 state per sequence of layers without one, all of them together
  int64_t other_parameters = 0;  // weights that the sizes above do not say, cut evenly
};

struct RankInventory {
  std::string host;
  std::string device;
  int64_t memory_bytes = 0;  // what this rank may use
};

/// The part of one tensor-parallel rank. Query heads [head_begin, head_end); the KV heads they read, in
/// order; where there are fewer KV heads than ranks each is repeated on tp_size / num_kv_heads of them.
struct HeadGroup {
  int head_begin = 0, head_end = 0;
  int kv_head_begin = 0, kv_head_end = 0;
};

struct TensorParallelLayout {
  int tp_size = 1;
  std::vector<HeadGroup> heads;  // by tp_rank
  int intermediate_per_rank = 0;
  int vocab_per_rank = 0;  // ceil(vocab / tp) rounded up to a multiple of 16; the last ranks hold padding
};

struct ShardPlan {
  int tp_size = 1;
  std::vector<std::vector<int>> replicas;  // world ranks, leader first
};

/// FAILED_PRECONDITION with the reason where `tp_size` cannot divide the model.
absl::StatusOr<TensorParallelLayout> layout_tensor_parallel(const ModelShape& model, int tp_size);

/// Bytes the activations of one step take on one rank: the residual stream and its normalized copy; inside a
/// layer either merged QKV and the attention's output, or gate, up and their product; for each sampled
/// sequence one hidden row and its logits (the leader also holds those of all ranks). The runner's arena is
/// this large, alignment aside.
int64_t activation_bytes(const ModelShape& model, const TensorParallelLayout& layout, int tp_rank,
                         int64_t max_step_tokens, int64_t max_num_seqs);

/// What rank 0 counts tokens in, for penalties: 4 bytes per sequence and id of the vocabulary. On the CPU a
/// page of it takes memory when a request with penalties first touches it.
int64_t token_count_bytes(const ModelShape& model, int tp_rank, int64_t max_num_seqs);

/// What the libraries of a device take beside what the engine allocates. Nothing on the CPU.
struct DeviceOverhead {
  int64_t context = 0;       // driver state and kernels of the process
  int64_t workspace = 0;     // scratch memory of matrix products
  int64_t communicator = 0;  // buffers of collectives
  int64_t graphs = 0;        // captured decode steps, at most
};

/// What captured decode steps may take of a device: capturing ends when they do.
inline constexpr int64_t kMostGraphBytes = int64_t{512} << 20;

/// Allowances for a CUDA device, not measurements: what a load measured is printed beside them.
DeviceOverhead cuda_overhead(int tp_size);

/// Bytes one rank holds.
struct RankBytes {
  int64_t weights = 0;             // matrices in the compute dtype (or quantized), norms and biases in f32
  int64_t kv_per_token = 0;        // all layers that have a cache
  int64_t state_per_sequence = 0;  // of layers that keep a state instead
  int64_t activations = 0;
  int64_t token_counts = 0;
  DeviceOverhead device;

  /// Everything but the cache and the weights.
  int64_t beside_weights() const;
};
RankBytes rank_bytes(const ModelShape& model, const TensorParallelLayout& layout, int tp_rank,
                     int64_t max_step_tokens, int64_t max_num_seqs, const DeviceOverhead& device = {});

/// Of the memory that is left after loading, what the cache may take; the rest is for what no ledger knows.
inline constexpr double kKvCacheShare = 0.9;
/// Bytes the KV cache may take of `left`, which is free when the weights are there and nothing else is.
int64_t kv_cache_budget(int64_t left, const RankBytes& bytes, double share = kKvCacheShare);

/// `wanted_tp_size` 0 chooses: the smallest size that fits the memory and divides the model. Ranks of one
/// replica are consecutive and on one host where possible. FAILED_PRECONDITION with the reason: does not
/// divide, does not fit, more ranks than can be used evenly.
absl::StatusOr<ShardPlan> plan_shards(const ModelShape& model, const std::vector<RankInventory>& ranks,
                                      int wanted_tp_size);

}  // namespace trireme
