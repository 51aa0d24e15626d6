#include "engine/layers/attention.h"

#include <cmath>

namespace trireme {
namespace {

ColumnParallelLinear make_qkv(const std::string& prefix, bool has_bias, const Shard& shard) {
  const HeadGroup& heads = shard.heads();
  const int64_t dim = shard.model.head_dim;
  const int64_t q_rows = shard.model.num_heads * dim, kv_rows = shard.model.num_kv_heads * dim;
  const int64_t q_count = shard.num_local_heads() * dim, kv_count = shard.num_local_kv_heads() * dim;
  return ColumnParallelLinear({{prefix + ".q_proj", q_rows, heads.head_begin * dim, q_count},
                               {prefix + ".k_proj", kv_rows, heads.kv_head_begin * dim, kv_count},
                               {prefix + ".v_proj", kv_rows, heads.kv_head_begin * dim, kv_count}},
                              shard.model.hidden_size, has_bias);
}

}  // namespace

Attention::Attention(const std::string& prefix, int layer, const AttentionOptions& options,
                     const RopeSpec& rope, const Shard& shard)
    : layer_(layer),
      q_size_(int64_t{shard.num_local_heads()} * shard.model.head_dim),
      kv_size_(int64_t{shard.num_local_kv_heads()} * shard.model.head_dim),
      rope_(rope),
      qkv_(make_qkv(prefix, options.qkv_bias, shard)),
      out_(prefix + ".o_proj", shard.model.hidden_size, int64_t{shard.model.num_heads} * shard.model.head_dim,
           int64_t{shard.heads().head_begin} * shard.model.head_dim, q_size_, options.out_bias, shard) {
  spec_.scale = 1.0f / std::sqrt(static_cast<float>(shard.model.head_dim));
  spec_.window_left = options.window_left;
  if (options.qk_norm) {
    q_norm_.emplace(prefix + ".q_norm", shard.model.head_dim, options.norm_eps);
    k_norm_.emplace(prefix + ".k_norm", shard.model.head_dim, options.norm_eps);
  }
}

void Attention::forward(ForwardContext& context, const Tensor& x, const Tensor& out) const {
  WorkspaceScope scope(context.workspace);
  const Tensor qkv = context.workspace.take(x.rows, q_size_ + 2 * kv_size_);
  const Tensor mixed = context.workspace.take(x.rows, q_size_);
  qkv_.forward(context, x, qkv);
  const Tensor q = qkv.slice_cols(0, q_size_);
  const Tensor k = qkv.slice_cols(q_size_, kv_size_);
  const Tensor v = qkv.slice_cols(q_size_ + kv_size_, kv_size_);
  QkNormSpec norm;
  if (q_norm_) norm = {q_norm_->weight(), k_norm_->weight(), q_norm_->eps()};
  context.backend.rope_and_store_kv(q, k, v, context.batch, rope_, norm, context.cache, layer_);
  context.backend.attention(q, context.cache, layer_, context.batch, spec_, mixed);
  out_.forward(context, mixed, out);
}

void Attention::collect(std::vector<Parameter*>& parameters) {
  qkv_.collect(parameters);
  out_.collect(parameters);
  if (q_norm_) {
    q_norm_->collect(parameters);
    k_norm_->collect(parameters);
  }
}

}  // namespace trireme
