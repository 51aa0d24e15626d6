#pragma once
// Ragged batches for attention, with the answer in double.

#include <cuda_runtime.h>

#include <memory>
#include <vector>

#include "kernels/cuda/attention.h"
#include "tests/kernels/cuda/device_tensor.h"

namespace trireme::testing {

struct AttentionShape {
  int num_kv_heads = 1, group = 1, head_dim = 64, block_size = 16;
  /// (query_len, context_len) of each sequence.
  std::vector<std::pair<int, int>> sequences;
  /// Stands in the block tables where no context is. That it is used would be noticed: nothing is there.
  /// Block 0 is NaN.
  int unused_block = 1 << 20;
};

/// Random q, k and v; what no context covers is NaN. Blocks of the sequences lie mixed.
class AttentionProblem {
 public:
  AttentionProblem(DType dtype, const AttentionShape& shape, std::mt19937& random);

  /// The last `query_len` tokens of the first `context_len` of one sequence, as a problem on the same cache;
  /// all of the sequences when `sequence` is -1.
  struct Part {
    int sequence = -1, query_len = 0, context_len = 0;
  };
  /// Runs the kernels under test. `shared_out`: contexts may be split among blocks.
  std::vector<float> run(const AttentionSpec& spec, bool shared_out, const Part& part) const;
  std::vector<float> run(const AttentionSpec& spec, bool shared_out = true) const {
    return run(spec, shared_out, {});
  }
  std::vector<double> wanted(const AttentionSpec& spec) const;
  size_t max_shared_bytes = simt::max_shared_bytes();  // what the kernels are told of the device
  int num_multiprocessors = 1000;
  int q_cols() const { return shape_.num_kv_heads * shape_.group * shape_.head_dim; }

 private:
  size_t cache_index(int sequence, int kv_head, int token) const;

  AttentionShape shape_;
  DType dtype_;
  int num_tokens_ = 0, max_blocks_ = 0;
  std::vector<int32_t> tables_;
  std::vector<float> q_, keys_, values_;
  std::unique_ptr<DeviceTensor> device_keys_, device_values_;
};

}  // namespace trireme::testing
