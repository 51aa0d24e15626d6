#pragma once
// What a layer needs from the checkpoint: which tensors, which part of each, and where it goes on this rank.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/tensor.h"

namespace trireme {

/// A part of one named tensor. The tensor's whole shape is stated, so that a file that holds another one is
/// refused.
struct TensorSlice {
  std::string name;                          // e.g. model.layers.0.self_attn.q_proj.weight
  int64_t tensor_rows = 0, tensor_cols = 0;  // wanted shape in the checkpoint; a vector [n] is n x 1
  int64_t row = 0, num_rows = 0;             // the part that is read
  int64_t col = 0, num_cols = 0;
  int64_t to_row = 0, to_col = 0;  // where its first element goes in the parameter
};

/// One parameter of this rank, filled once by the weight loader, from one or several tensors (a merged QKV
/// has three). A matrix becomes a Weight of the compute dtype; a vector (norm, bias) becomes f32 [1, rows] in
/// the backend's memory.
struct Parameter {
  enum class Kind { matrix, vector };
  Kind kind = Kind::matrix;
  int64_t rows = 0,
          cols = 0;  // on this rank, padding included; elements no slice covers are zero; a vector has cols 1
  std::vector<TensorSlice> slices;

  std::unique_ptr<Weight> weight;  // filled: matrix
  Buffer memory;                   // filled: vector
  Tensor vector;                   // filled: vector, f32 [1, rows]; empty when the parameter does not exist
};

}  // namespace trireme
