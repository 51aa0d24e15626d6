#pragma once

#include <string>
#include <vector>

#include "engine/layers/linear.h"

namespace trireme {

/// down(silu(gate(x)) * up(x)). Gate and up are one merged product, cut by columns; down is cut by rows.
/// Source: arXiv:2002.05202.
class GatedMlp {
 public:
  GatedMlp(const std::string& prefix, bool has_bias, const Shard& shard)
      : local_size_(shard.layout.intermediate_per_rank),
        gate_up_(
            {{prefix + ".gate_proj", shard.model.intermediate_size, shard.tp_rank * local_size_, local_size_},
             {prefix + ".up_proj", shard.model.intermediate_size, shard.tp_rank * local_size_, local_size_}},
            shard.model.hidden_size, has_bias),
        down_(prefix + ".down_proj", shard.model.hidden_size, shard.model.intermediate_size,
              shard.tp_rank * local_size_, local_size_, has_bias, shard) {}

  /// x, out: [num_tokens, hidden_size]; out may alias x.
  void forward(ForwardContext& context, const Tensor& x, const Tensor& out) const {
    WorkspaceScope scope(context.workspace);
    const Tensor gate_up = context.workspace.take(x.rows, 2 * local_size_);
    const Tensor product = context.workspace.take(x.rows, local_size_);
    gate_up_.forward(context, x, gate_up);
    context.backend.silu_mul(gate_up, product);
    down_.forward(context, product, out);
  }
  void collect(std::vector<Parameter*>& parameters) {
    gate_up_.collect(parameters);
    down_.collect(parameters);
  }

 private:
  int64_t local_size_;
  ColumnParallelLinear gate_up_;
  RowParallelLinear down_;
};

}  // namespace trireme
