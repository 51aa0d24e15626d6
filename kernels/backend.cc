// The checks of every operation, once for all devices.

#include "kernels/backend.h"

#include "kernels/check.h"

namespace trireme {
namespace {

/// A tensor that an operation touches: rows do not overlap, memory is there.
void check_layout(const Tensor& t) {
  CHECK_GE(t.rows, 0);
  CHECK_GT(t.cols, 0);
  if (t.rows > 1) CHECK_GE(t.row_stride, t.cols);
  if (t.rows > 0) TRIREME_CHECK(t.data != nullptr);
}

void check_matrix(const Tensor& t, DType dtype, int64_t rows, int64_t cols) {
  check_layout(t);
  CHECK_EQ(dtype_name(t.dtype), dtype_name(dtype));
  CHECK_EQ(t.rows, rows);
  CHECK_EQ(t.cols, cols);
}

/// A vector of `count` contiguous elements.
void check_vector(const Tensor& t, DType dtype, int64_t count) {
  CHECK_EQ(dtype_name(t.dtype), dtype_name(dtype));
  CHECK_EQ(t.size(), count);
  TRIREME_CHECK(t.contiguous() || t.cols == 1);
  if (t.cols == 1 && t.rows > 1) CHECK_EQ(t.row_stride, 1);
  if (count > 0) TRIREME_CHECK(t.data != nullptr);
}

void check_batch(const RaggedBatch& batch) {
  CHECK_GE(batch.num_seqs, 0);
  CHECK_GE(batch.num_tokens, batch.num_seqs);
  CHECK_LE(batch.max_query_len, batch.num_tokens);
  check_vector(batch.positions, DType::i32, batch.num_tokens);
  check_vector(batch.slots, DType::i32, batch.num_tokens);
  check_vector(batch.cu_query_lens, DType::i32, batch.num_seqs + 1);
  check_vector(batch.context_lens, DType::i32, batch.num_seqs);
  if (batch.num_seqs == 0) return;
  check_layout(batch.block_tables);
  CHECK_EQ(dtype_name(batch.block_tables.dtype), "i32");
  CHECK_EQ(batch.block_tables.rows, batch.num_seqs);
  CHECK_GE(batch.max_query_len, 1);
  CHECK_GE(batch.max_context_len, batch.max_query_len);
}

void check_cache(const KvCache& cache, int layer, const RaggedBatch& batch) {
  const KvCacheSpec& spec = cache.spec();
  CHECK_GE(layer, 0);
  CHECK_LT(layer, spec.num_layers);
  if (batch.num_seqs > 0) CHECK_GE(batch.block_tables.cols * spec.block_size, batch.max_context_len);
}

/// Query heads in groups of equal size, one group for each KV head.
void check_query(const Tensor& q, DType dtype, const KvCache& cache, const RaggedBatch& batch) {
  const int64_t kv_features = int64_t{cache.spec().num_kv_heads} * cache.spec().head_dim;
  check_matrix(q, dtype, batch.num_tokens, q.cols);
  CHECK_EQ(q.cols % kv_features, 0);
}

void check_logits(const Tensor& logits, int64_t vocab_size) {
  check_matrix(logits, DType::f32, logits.rows, logits.cols);
  CHECK_GT(vocab_size, 0);
  CHECK_LE(vocab_size, logits.cols);
}

/// Counts of tokens, of which `slot` is a row.
void check_counts(const Tensor& counts, int64_t slot) {
  check_matrix(counts, DType::i32, counts.rows, counts.cols);
  CHECK_GE(slot, 0);
  CHECK_LT(slot, counts.rows);
}

}  // namespace

void Backend::embedding(const Tensor& ids, const Weight& table, int64_t first_row, const Tensor& out) {
  check_matrix(out, activation_dtype(), out.rows, table.in_features());
  check_vector(ids, DType::i32, out.rows);
  CHECK_GE(first_row, 0);
  if (out.rows > 0) do_embedding(ids, table, first_row, out);
}

void Backend::matmul(const Tensor& x, const Weight& weight, const Tensor& bias, const Tensor& out) {
  check_matrix(x, activation_dtype(), x.rows, weight.in_features());
  check_matrix(out, out.dtype == DType::f32 ? DType::f32 : activation_dtype(), x.rows, weight.out_features());
  if (bias.data != nullptr) check_vector(bias, DType::f32, weight.out_features());
  if (x.rows > 0) do_matmul(x, weight, bias, out);
}

void Backend::rms_norm(const Tensor& x, const Tensor& weight, float eps, const Tensor& out) {
  check_matrix(x, activation_dtype(), x.rows, x.cols);
  check_matrix(out, activation_dtype(), x.rows, x.cols);
  check_vector(weight, DType::f32, x.cols);
  if (x.rows > 0) do_rms_norm(x, weight, eps, out);
}

void Backend::add_rms_norm(const Tensor& x, const Tensor& residual, const Tensor& weight, float eps,
                           const Tensor& out) {
  check_matrix(x, activation_dtype(), x.rows, x.cols);
  check_matrix(residual, activation_dtype(), x.rows, x.cols);
  check_matrix(out, activation_dtype(), x.rows, x.cols);
  check_vector(weight, DType::f32, x.cols);
  if (x.rows == 0) return;
  TRIREME_CHECK(residual.data != x.data && residual.data != out.data);
  do_add_rms_norm(x, residual, weight, eps, out);
}

void Backend::add(const Tensor& x, const Tensor& y) {
  check_matrix(x, activation_dtype(), x.rows, x.cols);
  check_matrix(y, activation_dtype(), x.rows, x.cols);
  if (x.rows > 0) do_add(x, y);
}

void Backend::silu_mul(const Tensor& gate_up, const Tensor& out) {
  check_matrix(out, activation_dtype(), out.rows, out.cols);
  check_matrix(gate_up, activation_dtype(), out.rows, 2 * out.cols);
  if (out.rows > 0) do_silu_mul(gate_up, out);
}

void Backend::rope_and_store_kv(const Tensor& q, const Tensor& k, const Tensor& v, const RaggedBatch& batch,
                                const RopeSpec& rope, const QkNormSpec& norm, KvCache& cache, int layer) {
  check_batch(batch);
  check_cache(cache, layer, batch);
  const int64_t head_dim = cache.spec().head_dim, kv_features = cache.spec().num_kv_heads * head_dim;
  check_query(q, activation_dtype(), cache, batch);
  check_matrix(k, activation_dtype(), batch.num_tokens, kv_features);
  check_matrix(v, activation_dtype(), batch.num_tokens, kv_features);
  CHECK_GE(rope.rotary_dim, 0);
  CHECK_LE(rope.rotary_dim, head_dim);
  CHECK_EQ(rope.rotary_dim % 2, 0);
  check_vector(rope.inverse_frequencies, DType::f32, rope.rotary_dim / 2);
  if (norm.q_weight.data != nullptr) check_vector(norm.q_weight, DType::f32, head_dim);
  if (norm.k_weight.data != nullptr) check_vector(norm.k_weight, DType::f32, head_dim);
  if (batch.num_tokens > 0) do_rope_and_store_kv(q, k, v, batch, rope, norm, cache, layer);
}

void Backend::attention(const Tensor& q, const KvCache& cache, int layer, const RaggedBatch& batch,
                        const AttentionSpec& spec, const Tensor& out) {
  check_batch(batch);
  check_cache(cache, layer, batch);
  check_query(q, activation_dtype(), cache, batch);
  check_matrix(out, activation_dtype(), q.rows, q.cols);
  CHECK_GE(spec.window_left, -1);
  CHECK_GE(spec.logit_softcap, 0);
  if (batch.num_tokens > 0) do_attention(q, cache, layer, batch, spec, out);
}

void Backend::gather_rows(const Tensor& x, const Tensor& row_ids, const Tensor& out) {
  check_matrix(out, activation_dtype(), out.rows, x.cols);
  check_matrix(x, activation_dtype(), x.rows, x.cols);
  check_vector(row_ids, DType::i32, out.rows);
  if (out.rows > 0) do_gather_rows(x, row_ids, out);
}

void Backend::copy(const Tensor& from, const Tensor& to) {
  check_matrix(from, to.dtype, to.rows, to.cols);
  check_layout(to);
  if (to.rows > 0) do_copy(from, to);
}

void Backend::resolve_last_tokens(const Tensor& last_tokens, const Tensor& ids) {
  check_vector(last_tokens, DType::i32, last_tokens.size());
  check_vector(ids, DType::i32, ids.size());
  if (ids.size() > 0) do_resolve_last_tokens(last_tokens, ids);
}

void Backend::keep_last_tokens(const Tensor& ids, const Tensor& slots, const Tensor& last_tokens) {
  check_vector(last_tokens, DType::i32, last_tokens.size());
  check_vector(ids, DType::i32, ids.size());
  check_vector(slots, DType::i32, ids.size());
  if (ids.size() > 0) do_keep_last_tokens(ids, slots, last_tokens);
}

void Backend::sample(const Tensor& logits, int64_t vocab_size, const SamplingRow* rows, const Tensor& ids,
                     const Tensor& logprobs, const SamplingLists& lists) {
  check_logits(logits, vocab_size);
  check_vector(ids, DType::i32, logits.rows);
  check_vector(logprobs, DType::f32, logits.rows);
  if (logits.rows == 0) return;
  TRIREME_CHECK(rows != nullptr);
  if (lists.token_counts.data != nullptr) {
    check_counts(lists.token_counts, 0);
    CHECK_LE(vocab_size, lists.token_counts.cols);
  }
  do_sample(logits, vocab_size, rows, ids, logprobs, lists);
}

void Backend::logprobs(const Tensor& logits, int64_t vocab_size, const int32_t* num_top,
                       const Tensor& target_ids, const Tensor& target_logprobs, const Tensor& top_ids,
                       const Tensor& top_logprobs) {
  check_logits(logits, vocab_size);
  check_vector(target_ids, DType::i32, logits.rows);
  check_vector(target_logprobs, DType::f32, logits.rows);
  check_matrix(top_ids, DType::i32, logits.rows, top_ids.cols);
  check_matrix(top_logprobs, DType::f32, logits.rows, top_ids.cols);
  if (logits.rows == 0) return;
  TRIREME_CHECK(num_top != nullptr);
  do_logprobs(logits, vocab_size, num_top, target_ids, target_logprobs, top_ids, top_logprobs);
}

void Backend::set_token_counts(const Tensor& counts, int64_t slot, const int32_t* prompt_ids,
                               int64_t num_prompt, const int32_t* output_ids, int64_t num_output) {
  check_counts(counts, slot);
  CHECK_GE(num_prompt, 0);
  CHECK_GE(num_output, 0);
  if (num_prompt > 0) TRIREME_CHECK(prompt_ids != nullptr);
  if (num_output > 0) TRIREME_CHECK(output_ids != nullptr);
  do_set_token_counts(counts, slot, prompt_ids, num_prompt, output_ids, num_output);
}

void Backend::count_tokens(const Tensor& counts, const int32_t* slots, const Tensor& ids) {
  check_vector(ids, DType::i32, ids.size());
  if (ids.size() == 0) return;
  TRIREME_CHECK(slots != nullptr);
  check_counts(counts, 0);
  do_count_tokens(counts, slots, ids);
}

}  // namespace trireme
