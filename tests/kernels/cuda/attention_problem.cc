#include "tests/kernels/cuda/attention_problem.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace trireme::testing {

AttentionProblem::AttentionProblem(DType dtype, const AttentionShape& shape, std::mt19937& random)
    : shape_(shape), dtype_(dtype) {
  int num_blocks = 1;  // block 0 belongs to nobody
  for (const auto& [query_len, context_len] : shape.sequences) {
    num_tokens_ += query_len;
    const int blocks = (context_len + shape.block_size - 1) / shape.block_size;
    max_blocks_ = std::max(max_blocks_, blocks);
    num_blocks += blocks;
  }
  std::vector<int32_t> ids(static_cast<size_t>(num_blocks - 1));
  std::iota(ids.begin(), ids.end(), 1);
  std::shuffle(ids.begin(), ids.end(), random);
  const int64_t block_elements = int64_t{shape.num_kv_heads} * shape.block_size * shape.head_dim;
  keys_.assign(static_cast<size_t>(num_blocks * block_elements), std::numeric_limits<float>::quiet_NaN());
  values_ = keys_;
  tables_.assign(shape.sequences.size() * static_cast<size_t>(max_blocks_), shape.unused_block);
  for (size_t s = 0, next = 0; s < shape.sequences.size(); ++s) {
    for (int token = 0; token < shape.sequences[s].second; ++token) {
      if (token % shape.block_size == 0)
        tables_[s * static_cast<size_t>(max_blocks_) + static_cast<size_t>(token / shape.block_size)] =
            ids[next++];
      for (int h = 0; h < shape.num_kv_heads; ++h) {
        const size_t place = cache_index(static_cast<int>(s), h, token);
        const std::vector<float> k = random_values(random, shape.head_dim),
                                 v = random_values(random, shape.head_dim);
        std::copy(k.begin(), k.end(), keys_.begin() + static_cast<int64_t>(place));
        std::copy(v.begin(), v.end(), values_.begin() + static_cast<int64_t>(place));
      }
    }
  }
  q_ = random_values(random, int64_t{num_tokens_} * q_cols());
  device_keys_ = std::make_unique<DeviceTensor>(dtype, num_blocks, block_elements, keys_);
  device_values_ = std::make_unique<DeviceTensor>(dtype, num_blocks, block_elements, values_);
  keys_ = device_keys_->values();
  values_ = device_values_->values();
  q_ = DeviceTensor(dtype, num_tokens_, q_cols(), q_).values();
}

size_t AttentionProblem::cache_index(int sequence, int kv_head, int token) const {
  const int64_t block = tables_[static_cast<size_t>(sequence * max_blocks_ + token / shape_.block_size)];
  return static_cast<size_t>(
      ((block * shape_.num_kv_heads + kv_head) * shape_.block_size + token % shape_.block_size) *
      shape_.head_dim);
}

std::vector<float> AttentionProblem::run(const AttentionSpec& spec, bool shared_out, const Part& part) const {
  std::vector<int32_t> cu_query_lens = {0}, context_lens, tables;
  std::vector<float> q;
  RaggedBatch batch;
  for (size_t s = 0, first = 0; s < shape_.sequences.size(); ++s) {
    const auto [all_queries, whole_context] = shape_.sequences[s];
    const bool chosen = part.sequence < 0 || part.sequence == static_cast<int>(s);
    const int query_len = part.sequence < 0 ? all_queries : part.query_len;
    const int context_len = part.sequence < 0 ? whole_context : part.context_len;
    if (chosen) {
      cu_query_lens.push_back(cu_query_lens.back() + query_len);
      context_lens.push_back(context_len);
      const auto table = tables_.begin() + static_cast<int64_t>(s) * max_blocks_;
      tables.insert(tables.end(), table, table + max_blocks_);
      const int64_t skipped = context_len - query_len - (whole_context - all_queries);
      const auto begin = q_.begin() + (static_cast<int64_t>(first) + skipped) * q_cols();
      q.insert(q.end(), begin, begin + int64_t{query_len} * q_cols());
      batch.max_query_len = std::max<int64_t>(batch.max_query_len, query_len);
      batch.max_context_len = std::max<int64_t>(batch.max_context_len, context_len);
      ++batch.num_seqs;
    }
    first += static_cast<size_t>(all_queries);
  }
  batch.num_tokens = cu_query_lens.back();
  const DeviceTensor device_q(dtype_, batch.num_tokens, q_cols(), q), out(dtype_, batch.num_tokens, q_cols());
  const DeviceTensor device_cu(cu_query_lens), device_context(context_lens), device_tables(tables);
  batch.cu_query_lens = device_cu;
  batch.context_lens = device_context;
  batch.block_tables = Tensor(device_tables.tensor().data, DType::i32, batch.num_seqs, max_blocks_);
  cuda::AttentionWorkspace workspace;
  workspace.segment_tokens = 64;
  workspace.num_multiprocessors = num_multiprocessors;
  workspace.max_shared_bytes = max_shared_bytes;
  const int64_t floats =
      static_cast<int64_t>(cuda::attention_workspace_bytes(
          batch.num_seqs * batch.max_query_len, int64_t{shape_.num_kv_heads} * shape_.group,
          batch.max_context_len, shape_.head_dim, workspace.segment_tokens)) /
      static_cast<int64_t>(sizeof(float));
  const DeviceTensor memory(DType::f32, 1, floats);
  if (shared_out) {
    workspace.data = memory.tensor().as<float>();
    workspace.bytes = static_cast<size_t>(floats) * sizeof(float);
  }
  cuda::attention(nullptr, device_q,
                  {device_keys_->tensor().data, device_values_->tensor().data, shape_.num_kv_heads,
                   shape_.head_dim, shape_.block_size},
                  batch, spec, workspace, out);
  return out.values();
}

std::vector<double> AttentionProblem::wanted(const AttentionSpec& spec) const {
  std::vector<double> out;
  size_t row = 0;
  for (size_t s = 0; s < shape_.sequences.size(); ++s) {
    const auto [query_len, context_len] = shape_.sequences[s];
    for (int i = 0; i < query_len; ++i, ++row) {
      const int last = context_len - query_len + i;
      const int first = spec.window_left < 0 ? 0 : std::max(0, last - spec.window_left);
      for (int head = 0; head < shape_.num_kv_heads * shape_.group; ++head) {
        const float* q = q_.data() + row * static_cast<size_t>(q_cols()) + head * shape_.head_dim;
        std::vector<double> weights, sum(static_cast<size_t>(shape_.head_dim));
        double total = 0;
        for (int token = first; token <= last; ++token) {
          const float* k = keys_.data() + cache_index(static_cast<int>(s), head / shape_.group, token);
          double score = 0;
          for (int d = 0; d < shape_.head_dim; ++d) score += double{q[d]} * k[d];
          score *= spec.scale;
          if (spec.logit_softcap > 0) score = spec.logit_softcap * std::tanh(score / spec.logit_softcap);
          weights.push_back(std::exp(score));
          total += weights.back();
        }
        for (int token = first; token <= last; ++token) {
          const float* v = values_.data() + cache_index(static_cast<int>(s), head / shape_.group, token);
          for (int d = 0; d < shape_.head_dim; ++d)
            sum[static_cast<size_t>(d)] += weights[static_cast<size_t>(token - first)] / total * v[d];
        }
        out.insert(out.end(), sum.begin(), sum.end());
      }
    }
  }
  return out;
}

}  // namespace trireme::testing
