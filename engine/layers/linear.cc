#include "engine/layers/linear.h"

#include "absl/strings/str_cat.h"

namespace trireme {

ColumnParallelLinear::ColumnParallelLinear(const std::vector<OutputPart>& parts, int64_t in_features,
                                           bool has_bias) {
  weight_.cols = in_features;
  for (const OutputPart& part : parts) {
    weight_.slices.push_back({absl::StrCat(part.name, ".weight"), part.tensor_rows, in_features, part.row,
                              part.num_rows, 0, in_features, weight_.rows, 0});
    if (has_bias) {
      bias_.slices.push_back({absl::StrCat(part.name, ".bias"), part.tensor_rows, 1, part.row, part.num_rows,
                              0, 1, weight_.rows, 0});
    }
    weight_.rows += part.num_rows;
  }
  bias_.kind = Parameter::Kind::vector;
  bias_.rows = has_bias ? weight_.rows : 0;
  bias_.cols = 1;
}

void ColumnParallelLinear::forward(ForwardContext& context, const Tensor& x, const Tensor& out) const {
  context.backend.matmul(x, *weight_.weight, bias_.vector, out);
}

void ColumnParallelLinear::collect(std::vector<Parameter*>& parameters) {
  parameters.push_back(&weight_);
  if (bias_.rows > 0) parameters.push_back(&bias_);
}

RowParallelLinear::RowParallelLinear(const std::string& name, int64_t out_features, int64_t in_features,
                                     int64_t begin, int64_t count, bool has_bias, const Shard& shard) {
  weight_.rows = out_features;
  weight_.cols = count;
  weight_.slices.push_back(
      {absl::StrCat(name, ".weight"), out_features, in_features, 0, out_features, begin, count, 0, 0});
  bias_.kind = Parameter::Kind::vector;
  bias_.cols = 1;
  if (has_bias && shard.tp_rank == 0) {
    bias_.rows = out_features;
    bias_.slices.push_back({absl::StrCat(name, ".bias"), out_features, 1, 0, out_features, 0, 1, 0, 0});
  }
}

void RowParallelLinear::forward(ForwardContext& context, const Tensor& x, const Tensor& out) const {
  context.backend.matmul(x, *weight_.weight, bias_.vector, out);
  context.all_reduce_sum(out);
}

void RowParallelLinear::collect(std::vector<Parameter*>& parameters) {
  parameters.push_back(&weight_);
  if (bias_.rows > 0) parameters.push_back(&bias_);
}

}  // namespace trireme
