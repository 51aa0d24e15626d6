#pragma once
// The CUDA backend. Each do_* method is defined in the file of its operation (gemm.cu, norm.cu, ...).
//
// Activations, weights and KV cache are of one dtype, chosen at creation; the residual stream is too, as in
// the models' own code: a sum is taken in f32 and rounded once. Everything inside an operation is f32.
// A row's bits depend on that row alone in every operation but matmul(), where they go by the number of rows
// too: those of more than kMaxFewRows are the library's, which chooses its algorithm by it, and so are fewer
// where it was faster at the start.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/few_rows_choice.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda/staging.h"
#include "kernels/cuda/weight.h"

namespace trireme::cuda {

/// What this backend promises of a request's tokens, whatever is computed beside it, in whatever chunks and
/// after a resumption: they are the same wherever the two best logits are further apart than this part of the
/// largest logit's magnitude. tests/engine/models/exactness_test.cc holds it to that.
constexpr float equal_up_to(DType activations) {
  return activations == DType::bf16 ? 0x1p-5f : activations == DType::f16 ? 0x1p-8f : 1e-5f;
}

struct Device {
  int ordinal = 0;
  std::string name;
  int major = 0, minor = 0;  // compute capability
  int num_multiprocessors = 1;
  size_t max_shared_bytes = 0;  // that a block may ask for
  /// Products of few rows go where they are faster; else, and where times say nothing, to our own kernel.
  bool measures_few_rows = true;
};

/// [layer][keys, values][block][kv_head][token][head_dim]
class CudaKvCache final : public KvCache {
 public:
  CudaKvCache(const KvCacheSpec& spec, int64_t num_blocks, Memory memory)
      : KvCache(spec, num_blocks), memory_(std::move(memory)) {}
  /// Of keys, or values, of one layer in one block.
  static size_t plane_bytes(const KvCacheSpec& spec) {
    return static_cast<size_t>(int64_t{spec.num_kv_heads} * spec.block_size * spec.head_dim) *
           dtype_bytes(spec.dtype);
  }
  KvLayer layer(int index) const;

 private:
  Memory memory_;
};

class CudaBackend final : public Backend {
 public:
  CudaBackend(const Device& device, DType activation_dtype);
  ~CudaBackend() override;

  std::string name() const override { return "cuda"; }
  std::string description() const override;
  DType activation_dtype() const override { return dtype_; }
  absl::Status check_compute_dtype(DType dtype) const override;

  absl::StatusOr<Buffer> allocate(size_t bytes) override;
  absl::StatusOr<Buffer> allocate_sparse(size_t bytes) override { return allocate(bytes); }
  void copy_to_device(void* destination, const void* source, size_t bytes) override;
  void copy_to_host(void* destination, const void* source, size_t bytes) override;
  absl::StatusOr<Buffer> allocate_staging(size_t bytes) override;
  void synchronize() override;
  void* stream() override { return static_cast<cudaStream_t>(queue()); }
  std::unique_ptr<Fence> create_fence() override;
  bool can_capture() const override { return true; }
  absl::StatusOr<std::unique_ptr<Graph>> capture(const std::function<void()>& work) override;
  std::unique_ptr<Marks> create_marks(int count) override;
  int64_t available_memory_bytes() const override;

  absl::StatusOr<std::unique_ptr<WeightBuilder>> prepare_weight(int64_t out_features, int64_t in_features,
                                                                DType dtype) override;
  size_t kv_block_bytes(const KvCacheSpec& spec) const override;
  absl::Status check_kv_cache(const KvCacheSpec& spec) const override;
  std::string attention_note(const KvCacheSpec& spec) const override;
  absl::StatusOr<std::unique_ptr<KvCache>> create_kv_cache(const KvCacheSpec& spec,
                                                           int64_t num_blocks) override;
  absl::Status reserve_workspace(int64_t max_tokens, int64_t max_seqs, int64_t max_features,
                                 int64_t vocab_size) override;

  std::string products_note() const override { return few_rows_.text(); }
  int64_t num_compiled_kernels() const override { return gemm_.num_choices(); }

 private:
  struct HostRange {
    const char *begin, *end;
  };
  /// Whether it was allocated by allocate_staging().
  bool is_staging(const void* memory) const;
  /// Where work is enqueued; makes this backend's device the calling thread's.
  const Stream& queue() const;
  /// Chooses the algorithms of all products that steps with the weights there are now can have.
  void measure_products(int64_t max_tokens, int64_t max_seqs, int64_t max_features);
  // ---- choose_few_rows.cc ----
  void choose_few_rows(int64_t max_features);
  void time_few_rows(const std::vector<Tensor>& weights, const Tensor& x, const Tensor& out);

  void do_embedding(const Tensor& ids, const Weight& table, int64_t first_row, const Tensor& out) override;
  void do_matmul(const Tensor& x, const Weight& weight, const Tensor& bias, const Tensor& out) override;
  void do_rms_norm(const Tensor& x, const Tensor& weight, float eps, const Tensor& out) override;
  void do_add_rms_norm(const Tensor& x, const Tensor& residual, const Tensor& weight, float eps,
                       const Tensor& out) override;
  void do_add(const Tensor& x, const Tensor& y) override;
  void do_silu_mul(const Tensor& gate_up, const Tensor& out) override;
  void do_rope_and_store_kv(const Tensor& q, const Tensor& k, const Tensor& v, const RaggedBatch& batch,
                            const RopeSpec& rope, const QkNormSpec& norm, KvCache& cache, int layer) override;
  void do_attention(const Tensor& q, const KvCache& cache, int layer, const RaggedBatch& batch,
                    const AttentionSpec& spec, const Tensor& out) override;
  void do_gather_rows(const Tensor& x, const Tensor& row_ids, const Tensor& out) override;
  void do_copy(const Tensor& from, const Tensor& to) override;
  void do_resolve_last_tokens(const Tensor& last_tokens, const Tensor& ids) override;
  void do_keep_last_tokens(const Tensor& ids, const Tensor& slots, const Tensor& last_tokens) override;
  void do_sample(const Tensor& logits, int64_t vocab_size, const SamplingRow* rows, const Tensor& ids,
                 const Tensor& logprobs, const SamplingLists& lists) override;
  void do_logprobs(const Tensor& logits, int64_t vocab_size, const int32_t* num_top, const Tensor& target_ids,
                   const Tensor& target_logprobs, const Tensor& top_ids, const Tensor& top_logprobs) override;
  void do_set_token_counts(const Tensor& counts, int64_t slot, const int32_t* prompt_ids, int64_t num_prompt,
                           const int32_t* output_ids, int64_t num_output) override;
  void do_count_tokens(const Tensor& counts, const int32_t* slots, const Tensor& ids) override;

  const Device device_;
  const DType dtype_;
  Stream stream_;
  Staging staging_{stream_};
  std::vector<HostRange> staging_memory_;
  Gemm gemm_{stream_};
  FewRowsChoice few_rows_;
  WeightUploader uploader_;
  CudaWeights weights_;      // those that live
  Scratch attention_parts_;  // partial results of contexts that blocks share
  Scratch edited_logits_;    // f32 [rows, vocab_size]
};

}  // namespace trireme::cuda
