#pragma once
// The CPU backend. Each do_* method is defined in the file of its operation (gemm.cc, norm.cc, ...).

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/onednn.h"

namespace trireme::cpu {

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(int threads);

  std::string name() const override { return "cpu"; }
  std::string description() const override;
  DType activation_dtype() const override { return DType::f32; }
  absl::Status check_compute_dtype(DType dtype) const override;

  absl::StatusOr<Buffer> allocate(size_t bytes) override;
  absl::StatusOr<Buffer> allocate_sparse(size_t bytes) override;
  void copy_to_device(void* destination, const void* source, size_t bytes) override;
  void copy_to_host(void* destination, const void* source, size_t bytes) override;
  void synchronize() override {}
  int64_t available_memory_bytes() const override;

  absl::StatusOr<std::unique_ptr<WeightBuilder>> prepare_weight(int64_t out_features, int64_t in_features,
                                                                DType dtype) override;
  size_t kv_block_bytes(const KvCacheSpec& spec) const override;
  absl::StatusOr<std::unique_ptr<KvCache>> create_kv_cache(const KvCacheSpec& spec,
                                                           int64_t num_blocks) override;
  absl::Status reserve_workspace(int64_t max_tokens, int64_t max_seqs, int64_t max_features,
                                 int64_t vocab_size) override;

  int64_t num_compiled_kernels() const override { return onednn_.num_primitives(); }

  /// Bytes of scratch held now. Constant once the largest step has been seen.
  size_t workspace_bytes() const;

 private:
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

  size_t sampling_bytes(int64_t vocab_size) const;
  Tensor padded_rows(const Tensor& x, const PackedLayout& layout);

  int threads_;
  OneDnn onednn_;
  Workspace rows_;             // x of a product, rounded to bf16 and padded
  Workspace out_;              // a product whose rows go apart
  Workspace attention_;        // per-thread state of attention
  Workspace attention_parts_;  // results of segments, where a sequence is shared by threads
  Workspace sampling_;         // per-thread probabilities
};

}  // namespace trireme::cpu
