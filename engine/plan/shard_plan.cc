#include "engine/plan/shard_plan.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"

namespace trireme {
namespace {

constexpr int64_t kLogitBytes = 4;   // f32
constexpr int64_t kVectorBytes = 4;  // norms, biases, states: f32
constexpr int64_t kScaleBytes = 2;
// A rank that can hold no more than the weights cannot serve: room for this many tokens of KV is part of
// "fits".
constexpr int64_t kMinimumKvTokens = 512;
constexpr int64_t kPlanningStepTokens = 512;
constexpr int64_t kPlanningNumSeqs = 64;

int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

/// Weights of the layers' matrices on one rank.
int64_t layer_matrix_elements(const ModelShape& model, const TensorParallelLayout& layout, int tp_rank) {
  const HeadGroup& heads = layout.heads.at(tp_rank);
  const int64_t hidden = model.hidden_size;
  const int64_t q = int64_t{heads.head_end - heads.head_begin} * model.head_dim;
  const int64_t kv = int64_t{heads.kv_head_end - heads.kv_head_begin} * model.head_dim;
  const int64_t experts = std::max(model.num_experts, 1);
  const int64_t per_layer =
      (q + 2 * kv) * hidden + hidden * q + 3 * hidden * layout.intermediate_per_rank * experts +
      hidden * model.num_experts;  // the last: what chooses among experts, on every rank
  return model.num_layers * per_layer + model.other_parameters / layout.tp_size;
}

int64_t layer_matrix_bytes(const ModelShape& model, const TensorParallelLayout& layout, int tp_rank) {
  const int64_t elements = layer_matrix_elements(model, layout, tp_rank);
  if (model.layer_weight_bits == 0) return elements * model.weight_dtype_bytes;
  const int64_t scales = model.scale_group > 0 ? elements / model.scale_group * kScaleBytes : 0;
  return elements * model.layer_weight_bits / 8 + scales;
}

/// Norms and biases of one rank. Biases after a sum over the ranks are added once, by rank 0.
int64_t vector_elements(const ModelShape& model, const TensorParallelLayout& layout, int tp_rank) {
  const HeadGroup& heads = layout.heads.at(tp_rank);
  const int64_t hidden = model.hidden_size;
  const int64_t qkv =
      int64_t{heads.head_end - heads.head_begin + 2 * (heads.kv_head_end - heads.kv_head_begin)} *
      model.head_dim;
  int64_t per_layer = 2 * hidden;
  if (model.qkv_bias) per_layer += qkv;
  if (model.qk_norm) per_layer += 2 * model.head_dim;
  if (model.mlp_bias) per_layer += 2 * layout.intermediate_per_rank;
  if (tp_rank == 0) per_layer += (model.out_bias ? hidden : 0) + (model.mlp_bias ? hidden : 0);
  return model.num_layers * per_layer + hidden;
}

int64_t needed_bytes(const ModelShape& model, const TensorParallelLayout& layout, int tp_rank) {
  const RankBytes bytes = rank_bytes(model, layout, tp_rank, kPlanningStepTokens, kPlanningNumSeqs);
  return bytes.weights + bytes.beside_weights() + kMinimumKvTokens * bytes.kv_per_token;
}

/// OK when every rank of every replica has room for its part.
absl::Status check_fits(const ModelShape& model, const std::vector<RankInventory>& ranks, int tp_size) {
  auto layout = layout_tensor_parallel(model, tp_size);
  if (!layout.ok()) return layout.status();
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    const int64_t wanted = needed_bytes(model, *layout, static_cast<int>(rank) % tp_size);
    if (ranks[rank].memory_bytes < wanted) {
      return absl::FailedPreconditionError(
          absl::StrCat("model ", model.name, " at tensor-parallel size ", tp_size, " needs ", wanted >> 20,
                       " MiB on rank ", rank, " (", ranks[rank].host, ", ", ranks[rank].device,
                       "), which has ", ranks[rank].memory_bytes >> 20, " MiB"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<int> choose_tp_size(const ModelShape& model, const std::vector<RankInventory>& ranks) {
  const int num_ranks = static_cast<int>(ranks.size());
  absl::Status why;
  for (int tp_size = 1; tp_size <= num_ranks; ++tp_size) {
    if (num_ranks % tp_size != 0) continue;
    why = check_fits(model, ranks, tp_size);
    if (why.ok()) return tp_size;
  }
  return absl::FailedPreconditionError(absl::StrCat("no tensor-parallel size fits ", num_ranks,
                                                    " ranks; the largest one tried says: ", why.message()));
}

}  // namespace

absl::StatusOr<TensorParallelLayout> layout_tensor_parallel(const ModelShape& model, int tp_size) {
  const auto refuse = [&](const std::string& why) {
    return absl::FailedPreconditionError(
        absl::StrCat("model ", model.name, " cannot be cut for tensor-parallel size ", tp_size, ": ", why));
  };
  if (tp_size < 1) return refuse("the size must be at least 1");
  if (model.num_heads < 1 || model.num_kv_heads < 1 || model.num_heads % model.num_kv_heads != 0) {
    return refuse(absl::StrCat("num_heads ", model.num_heads, " is not a multiple of num_kv_heads ",
                               model.num_kv_heads));
  }
  if (model.num_heads % tp_size != 0) {
    return refuse(absl::StrCat("num_heads ", model.num_heads, " is not a multiple of it"));
  }
  if (model.num_kv_heads % tp_size != 0 && tp_size % model.num_kv_heads != 0) {
    return refuse(
        absl::StrCat("num_kv_heads ", model.num_kv_heads, " neither divides it nor is a multiple of it"));
  }
  if (model.intermediate_size % tp_size != 0) {
    return refuse(absl::StrCat("intermediate_size ", model.intermediate_size, " is not a multiple of it"));
  }
  TensorParallelLayout layout;
  layout.tp_size = tp_size;
  layout.intermediate_per_rank = model.intermediate_size / tp_size;
  layout.vocab_per_rank = static_cast<int>(round_up((model.vocab_size + tp_size - 1) / tp_size, 16));
  const int heads_per_rank = model.num_heads / tp_size;
  const int group = model.num_heads / model.num_kv_heads;
  for (int rank = 0; rank < tp_size; ++rank) {
    HeadGroup heads;
    heads.head_begin = rank * heads_per_rank;
    heads.head_end = heads.head_begin + heads_per_rank;
    heads.kv_head_begin = heads.head_begin / group;
    heads.kv_head_end = (heads.head_end - 1) / group + 1;
    layout.heads.push_back(heads);
  }
  return layout;
}

int64_t activation_bytes(const ModelShape& model, const TensorParallelLayout& layout, int tp_rank,
                         int64_t max_step_tokens, int64_t max_num_seqs) {
  const HeadGroup& heads = layout.heads.at(tp_rank);
  const int64_t q = int64_t{heads.head_end - heads.head_begin} * model.head_dim;
  const int64_t kv = int64_t{heads.kv_head_end - heads.kv_head_begin} * model.head_dim;
  const int64_t experts = std::max(model.experts_per_token, 1);
  const int64_t in_layer = std::max(2 * q + 2 * kv, 3 * int64_t{layout.intermediate_per_rank} * experts);
  const int64_t per_token = 2 * int64_t{model.hidden_size} + in_layer;
  const int64_t whole_logits =
      tp_rank == 0 && layout.tp_size > 1 ? int64_t{layout.vocab_per_rank} * layout.tp_size : 0;
  const int64_t logits = layout.vocab_per_rank + whole_logits;
  return model.activation_dtype_bytes * (max_step_tokens * per_token + max_num_seqs * model.hidden_size) +
         kLogitBytes * max_num_seqs * logits;
}

int64_t token_count_bytes(const ModelShape& model, int tp_rank, int64_t max_num_seqs) {
  constexpr int64_t kCountBytes = 4;
  return tp_rank == 0 ? kCountBytes * max_num_seqs * model.vocab_size : 0;
}

DeviceOverhead cuda_overhead(int tp_size) {
  constexpr int64_t kMiB = int64_t{1} << 20;
  return {512 * kMiB, 128 * kMiB, tp_size > 1 ? 400 * kMiB : 0, kMostGraphBytes};
}

int64_t RankBytes::beside_weights() const {
  return activations + token_counts + device.context + device.workspace + device.communicator + device.graphs;
}

int64_t kv_cache_budget(int64_t left, const RankBytes& bytes, double share) {
  return static_cast<int64_t>(share * static_cast<double>(left - bytes.beside_weights()));
}

RankBytes rank_bytes(const ModelShape& model, const TensorParallelLayout& layout, int tp_rank,
                     int64_t max_step_tokens, int64_t max_num_seqs, const DeviceOverhead& device) {
  const HeadGroup& heads = layout.heads.at(tp_rank);
  const int64_t kv = int64_t{heads.kv_head_end - heads.kv_head_begin} * model.head_dim;
  const int64_t vocab_matrices = model.tie_word_embeddings ? 1 : 2;
  RankBytes bytes;
  bytes.weights = layer_matrix_bytes(model, layout, tp_rank) +
                  model.weight_dtype_bytes * vocab_matrices * layout.vocab_per_rank * model.hidden_size +
                  kVectorBytes * vector_elements(model, layout, tp_rank);
  const int64_t cache_layers = model.cache_layers > 0 ? model.cache_layers : model.num_layers;
  bytes.kv_per_token = cache_layers * 2 * kv * model.kv_dtype_bytes;
  bytes.state_per_sequence = kVectorBytes * model.state_elements / layout.tp_size;
  bytes.device = device;
  bytes.activations = activation_bytes(model, layout, tp_rank, max_step_tokens, max_num_seqs);
  bytes.token_counts = token_count_bytes(model, tp_rank, max_num_seqs);
  return bytes;
}

absl::StatusOr<ShardPlan> plan_shards(const ModelShape& model, const std::vector<RankInventory>& ranks,
                                      int wanted_tp_size) {
  const int num_ranks = static_cast<int>(ranks.size());
  if (num_ranks == 0) return absl::FailedPreconditionError("the inventory has no ranks");
  if (wanted_tp_size < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor-parallel size: got ", wanted_tp_size, ", wanted 0 (choose) or more"));
  }
  int tp_size = wanted_tp_size;
  if (tp_size == 0) {
    auto chosen = choose_tp_size(model, ranks);
    if (!chosen.ok()) return chosen.status();
    tp_size = *chosen;
  }
  if (tp_size > num_ranks) {
    return absl::FailedPreconditionError(absl::StrCat("tensor-parallel size ", tp_size, " needs ", tp_size,
                                                      " ranks; the job has ", num_ranks));
  }
  if (num_ranks % tp_size != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("the job has ", num_ranks, " ranks, of which tensor-parallel size ", tp_size,
                     " can use ", num_ranks / tp_size * tp_size, "; start a multiple of ", tp_size));
  }
  if (absl::Status fits = check_fits(model, ranks, tp_size); !fits.ok()) return fits;
  ShardPlan plan;
  plan.tp_size = tp_size;
  // mpirun numbers the ranks of one host one after the other, so consecutive ranks keep a replica on one host
  // if it can be.
  for (int first = 0; first < num_ranks; first += tp_size) {
    std::vector<int> replica(tp_size);
    for (int i = 0; i < tp_size; ++i) replica[i] = first + i;
    plan.replicas.push_back(std::move(replica));
  }
  return plan;
}

}  // namespace trireme
