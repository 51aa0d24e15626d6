#include "engine/layers/embedding.h"

#include <algorithm>

namespace trireme {

VocabParallelMatrix::VocabParallelMatrix(const std::string& tensor_name, const Shard& shard) {
  const int64_t vocab = shard.model.vocab_size, hidden = shard.model.hidden_size;
  weight_.rows = shard.layout.vocab_per_rank;
  weight_.cols = hidden;
  first_row_ = weight_.rows * shard.tp_rank;
  const int64_t num_rows = std::clamp<int64_t>(vocab - first_row_, 0, weight_.rows);
  if (num_rows > 0)
    weight_.slices.push_back({tensor_name, vocab, hidden, first_row_, num_rows, 0, hidden, 0, 0});
}

void VocabParallelMatrix::embed(ForwardContext& context, const Tensor& ids, const Tensor& out) const {
  context.backend.embedding(ids, *weight_.weight, first_row_, out);
  context.all_reduce_sum(out);
}

void VocabParallelMatrix::project(ForwardContext& context, const Tensor& x, const Tensor& out) const {
  context.backend.matmul(x, *weight_.weight, Tensor(), out);
}

}  // namespace trireme
