#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine/layers/linear.h"
#include "engine/layers/rms_norm.h"

namespace trireme {

struct AttentionOptions {
  bool qkv_bias = false;
  bool out_bias = false;
  bool qk_norm = false;  // each head of q and k is normalized before rotation
  float norm_eps = 0;
  int window_left = -1;  // see AttentionSpec
};

/// Grouped-query self-attention with rotary positions over the paged cache of `layer`. Heads are cut over the
/// ranks.
class Attention {
 public:
  /// `rope` points into memory that outlives the layer.
  Attention(const std::string& prefix, int layer, const AttentionOptions& options, const RopeSpec& rope,
            const Shard& shard);

  /// x, out: [num_tokens, hidden_size]; out may alias x.
  void forward(ForwardContext& context, const Tensor& x, const Tensor& out) const;
  void collect(std::vector<Parameter*>& parameters);

 private:
  int layer_;
  int64_t q_size_, kv_size_;  // local heads * head_dim
  RopeSpec rope_;
  AttentionSpec spec_;
  ColumnParallelLinear qkv_;
  RowParallelLinear out_;
  std::optional<RmsNorm> q_norm_, k_norm_;
};

}  // namespace trireme
