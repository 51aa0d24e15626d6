#pragma once
// A weight in the blocked layout that oneDNN's matrix product reads fastest on AVX-512 and that our few-row
// kernels read too: panels of 64 output features; inside a panel the input features follow one another, each
// with its 64 outputs side by side. bf16 keeps two neighbouring input features together, as the dot-product
// instruction wants them. In oneDNN's words, for the [in, out] matrix: BA16a64b (f32) and BA16a64b2a (bf16).

#include <cstdint>
#include <memory>

#include "kernels/backend.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/round_up.h"

namespace trireme::cpu {

inline constexpr int64_t kPanel = 64;  // output features side by side

struct PackedLayout {
  int64_t out_features = 0;
  int64_t in_features = 0;
  DType dtype = DType::f32;

  int64_t num_panels() const { return (out_features + kPanel - 1) / kPanel; }
  /// in_features with zero padding: to 16 in f32, to 32 in bf16.
  int64_t padded_in() const { return round_up(in_features, dtype == DType::bf16 ? 32 : 16); }
  int64_t panel_elements() const { return padded_in() * kPanel; }
  size_t bytes() const { return static_cast<size_t>(num_panels() * panel_elements()) * dtype_bytes(dtype); }
  /// Index of element (out, in).
  int64_t offset(int64_t out, int64_t in) const {
    const int64_t panel = out / kPanel * panel_elements(), lane = out % kPanel;
    return dtype == DType::bf16 ? panel + in / 2 * (2 * kPanel) + lane * 2 + in % 2
                                : panel + in * kPanel + lane;
  }
};

class PackedWeight final : public Weight {
 public:
  PackedWeight(const PackedLayout& layout, HostMemory memory)
      : Weight(layout.out_features, layout.in_features, layout.dtype),
        layout_(layout),
        memory_(std::move(memory)) {}
  size_t bytes() const override { return memory_.bytes(); }
  const PackedLayout& layout() const { return layout_; }
  void* data() const { return memory_.data(); }

  /// oneDNN's handle of this memory, made when first multiplied (see onednn.h).
  mutable std::shared_ptr<void> onednn_memory;

 private:
  PackedLayout layout_;
  HostMemory memory_;
};

class PackedWeightBuilder final : public WeightBuilder {
 public:
  PackedWeightBuilder(const PackedLayout& layout, HostMemory memory);
  void write(int64_t row, int64_t num_rows, int64_t col, int64_t num_cols, const void* source,
             int64_t source_stride, DType source_dtype) override;
  std::unique_ptr<Weight> finish() override;

 private:
  PackedLayout layout_;
  HostMemory memory_;
};

}  // namespace trireme::cpu
