#pragma once
// A device that keeps each weight as a plain f32 matrix, counts how often every element was written, and
// complains when another thread than its maker uses it. It computes nothing.

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/layers/parameter.h"
#include "kernels/backend.h"
#include "kernels/check.h"
#include "kernels/float_conversion.h"

namespace trireme {

class FakeWeight : public Weight {
 public:
  FakeWeight(int64_t rows, int64_t cols, DType dtype)
      : Weight(rows, cols, dtype),
        values(static_cast<size_t>(rows * cols), 0.0f),
        num_writes(static_cast<size_t>(rows * cols), 0) {}
  size_t bytes() const override { return values.size() * dtype_bytes(dtype()); }
  float at(int64_t row, int64_t col) const { return values[static_cast<size_t>(row * in_features() + col)]; }

  std::vector<float> values;
  std::vector<uint8_t> num_writes;
};

class FakeBackend : public Backend {
 public:
  bool can_bf16 = true;
  bool can_f16 = false;
  int allocations_left = 1 << 30;  // of allocate() and prepare_weight() together
  std::atomic<int> num_prepared = 0;
  std::atomic<int> num_open = 0, max_open = 0;  // builders between prepare and finish

  std::string name() const override { return "fake"; }
  std::string description() const override { return "fake"; }
  DType activation_dtype() const override { return DType::f32; }
  absl::Status check_compute_dtype(DType dtype) const override {
    if (dtype == DType::f32 || (dtype == DType::bf16 && can_bf16) || (dtype == DType::f16 && can_f16))
      return absl::OkStatus();
    return absl::UnimplementedError("no such unit");
  }

  absl::StatusOr<Buffer> allocate(size_t bytes) override {
    check_thread();
    if (allocations_left-- <= 0) return absl::ResourceExhaustedError("allocate: out of memory");
    return Buffer(std::calloc(std::max<size_t>(bytes, 1), 1), bytes,
                  [](void* data, size_t) { std::free(data); });
  }
  absl::StatusOr<Buffer> allocate_sparse(size_t bytes) override { return allocate(bytes); }
  void copy_to_device(void* destination, const void* source, size_t bytes) override {
    check_thread();
    std::memcpy(destination, source, bytes);
  }
  void copy_to_host(void* destination, const void* source, size_t bytes) override {
    std::memcpy(destination, source, bytes);
  }
  void synchronize() override {}
  int64_t available_memory_bytes() const override { return 1 << 30; }

  absl::StatusOr<std::unique_ptr<WeightBuilder>> prepare_weight(int64_t rows, int64_t cols,
                                                                DType dtype) override {
    check_thread();
    if (allocations_left-- <= 0) return absl::ResourceExhaustedError("prepare_weight: out of memory");
    ++num_prepared;
    const int open = ++num_open;
    for (int seen = max_open; seen < open && !max_open.compare_exchange_weak(seen, open);) continue;
    return std::unique_ptr<WeightBuilder>(new Builder(*this, rows, cols, dtype));
  }
  size_t kv_block_bytes(const KvCacheSpec&) const override { return 0; }
  absl::StatusOr<std::unique_ptr<KvCache>> create_kv_cache(const KvCacheSpec&, int64_t) override {
    return absl::UnimplementedError("");
  }
  absl::Status reserve_workspace(int64_t, int64_t, int64_t, int64_t) override { return absl::OkStatus(); }
  int64_t num_compiled_kernels() const override { return 0; }

 private:
  void check_thread() const { TRIREME_CHECK(std::this_thread::get_id() == maker_); }

  class Builder : public WeightBuilder {
   public:
    Builder(FakeBackend& backend, int64_t rows, int64_t cols, DType dtype)
        : backend_(backend), weight_(new FakeWeight(rows, cols, dtype)) {}
    void write(int64_t row, int64_t num_rows, int64_t col, int64_t num_cols, const void* source,
               int64_t stride, DType dtype) override {
      CHECK_LE(row + num_rows, weight_->out_features());
      CHECK_LE(col + num_cols, weight_->in_features());
      for (int64_t r = 0; r < num_rows; ++r) {
        const size_t to = static_cast<size_t>((row + r) * weight_->in_features() + col);
        convert_to_f32(
            static_cast<const char*>(source) + static_cast<size_t>(r * stride) * dtype_bytes(dtype), dtype,
            num_cols, weight_->values.data() + to);
        for (size_t i = 0; i < static_cast<size_t>(num_cols); ++i) ++weight_->num_writes[to + i];
      }
    }
    std::unique_ptr<Weight> finish() override {
      backend_.check_thread();
      --backend_.num_open;
      return std::move(weight_);
    }

   private:
    FakeBackend& backend_;
    std::unique_ptr<FakeWeight> weight_;
  };

  void do_embedding(const Tensor&, const Weight&, int64_t, const Tensor&) override { std::abort(); }
  void do_matmul(const Tensor&, const Weight&, const Tensor&, const Tensor&) override { std::abort(); }
  void do_rms_norm(const Tensor&, const Tensor&, float, const Tensor&) override { std::abort(); }
  void do_add_rms_norm(const Tensor&, const Tensor&, const Tensor&, float, const Tensor&) override {
    std::abort();
  }
  void do_add(const Tensor&, const Tensor&) override { std::abort(); }
  void do_silu_mul(const Tensor&, const Tensor&) override { std::abort(); }
  void do_rope_and_store_kv(const Tensor&, const Tensor&, const Tensor&, const RaggedBatch&, const RopeSpec&,
                            const QkNormSpec&, KvCache&, int) override {
    std::abort();
  }
  void do_attention(const Tensor&, const KvCache&, int, const RaggedBatch&, const AttentionSpec&,
                    const Tensor&) override {
    std::abort();
  }
  void do_gather_rows(const Tensor&, const Tensor&, const Tensor&) override { std::abort(); }
  void do_copy(const Tensor&, const Tensor&) override { std::abort(); }
  void do_resolve_last_tokens(const Tensor&, const Tensor&) override { std::abort(); }
  void do_keep_last_tokens(const Tensor&, const Tensor&, const Tensor&) override { std::abort(); }
  void do_sample(const Tensor&, int64_t, const SamplingRow*, const Tensor&, const Tensor&,
                 const SamplingLists&) override {
    std::abort();
  }
  void do_logprobs(const Tensor&, int64_t, const int32_t*, const Tensor&, const Tensor&, const Tensor&,
                   const Tensor&) override {
    std::abort();
  }
  void do_set_token_counts(const Tensor&, int64_t, const int32_t*, int64_t, const int32_t*,
                           int64_t) override {
    std::abort();
  }
  void do_count_tokens(const Tensor&, const int32_t*, const Tensor&) override { std::abort(); }

  const std::thread::id maker_ = std::this_thread::get_id();
};

inline const FakeWeight& fake(const Parameter& parameter) {
  return static_cast<const FakeWeight&>(*parameter.weight);
}

}  // namespace trireme
