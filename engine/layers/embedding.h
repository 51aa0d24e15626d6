#pragma once

#include <string>
#include <vector>

#include "engine/layers/forward_context.h"
#include "engine/layers/parameter.h"
#include "engine/layers/shard.h"

namespace trireme {

/// Rows of a vocabulary matrix, cut by rows: rank r holds the ids [r * vocab_per_rank, (r + 1) *
/// vocab_per_rank), the last ones padded with zeros. Serves as embedding, as output head, or as both when the
/// model ties them.
class VocabParallelMatrix {
 public:
  VocabParallelMatrix(const std::string& tensor_name, const Shard& shard);

  /// out[t, :] = row ids[t] of the whole matrix, on every rank. ids: i32 [num_tokens]; out: [num_tokens,
  /// hidden_size].
  void embed(ForwardContext& context, const Tensor& ids, const Tensor& out) const;
  /// This rank's logits: out = x · rows^T. x: [num_rows, hidden_size]; out: [num_rows, vocab_per_rank].
  void project(ForwardContext& context, const Tensor& x, const Tensor& out) const;
  void collect(std::vector<Parameter*>& parameters) { parameters.push_back(&weight_); }

 private:
  Parameter weight_;
  int64_t first_row_;
};

}  // namespace trireme
