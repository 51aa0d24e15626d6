#pragma once
// Products with weights, and how each is cut. Sources: arXiv:1909.08053 (column- and row-parallel).

#include <string>
#include <vector>

#include "engine/layers/forward_context.h"
#include "engine/layers/parameter.h"
#include "engine/layers/shard.h"

namespace trireme {

/// A named tensor's rows [row, row + num_rows) out of `tensor_rows`, one after the other in the merged
/// weight.
struct OutputPart {
  std::string name;  // without ".weight" or ".bias"
  int64_t tensor_rows = 0;
  int64_t row = 0, num_rows = 0;
};

/// Cut by output features: every rank has all inputs and some outputs. Several tensors may be merged into one
/// product.
class ColumnParallelLinear {
 public:
  ColumnParallelLinear(const std::vector<OutputPart>& parts, int64_t in_features, bool has_bias);

  /// x: [num_tokens, in_features]; out: [num_tokens, out_features()].
  void forward(ForwardContext& context, const Tensor& x, const Tensor& out) const;
  int64_t out_features() const { return weight_.rows; }
  void collect(std::vector<Parameter*>& parameters);

 private:
  Parameter weight_;
  Parameter bias_;  // rows 0: none
};

/// Cut by input features: every rank has some inputs, and the partial outputs are summed over the ranks.
class RowParallelLinear {
 public:
  /// Reads input features [begin, begin + count) of `in_features`. The bias is added once, by rank 0.
  RowParallelLinear(const std::string& name, int64_t out_features, int64_t in_features, int64_t begin,
                    int64_t count, bool has_bias, const Shard& shard);

  /// x: [num_tokens, count]; out: [num_tokens, out_features], the same on every rank.
  void forward(ForwardContext& context, const Tensor& x, const Tensor& out) const;
  void collect(std::vector<Parameter*>& parameters);

 private:
  Parameter weight_;
  Parameter bias_;
};

}  // namespace trireme
