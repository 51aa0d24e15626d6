#pragma once
// Products of few rows with a packed weight, bound by reading the weight. For each row they give the bits of
// oneDNN's product: it sums runs of `k_run` input features, each from zero in order, and adds the runs in
// order.

#include <cstdint>

#include "kernels/cpu/packed_weight.h"

namespace trireme::cpu {

/// Rows up to which the own kernels are at least as fast as oneDNN on the packed layout.
inline constexpr int64_t kFewRows = 32;

/// The length of oneDNN 2.6's runs on AVX-512 (its brgemm product's K blocking); found by comparing bits and
/// kept true by a test.
inline int64_t onednn_k_run(int64_t in_features) {
  return in_features <= 512 ? in_features : in_features <= 1024 ? 512 : 1024;
}

/// out[r, panel columns] = x · weight^T + bias for the panels [first_panel, last_panel) of a bf16 weight.
/// x: bf16 [rows, padded_in] with rows x_stride apart; rows: 1 to kFewRows; bias: [out_features] or null.
/// Needs AVX512_BF16.
void few_rows_bf16(const uint16_t* x, int64_t x_stride, int64_t rows, const PackedLayout& layout,
                   const uint16_t* weight, const float* bias, int64_t first_panel, int64_t last_panel,
                   float* out, int64_t out_stride);
bool has_bf16_dot_product();

/// The same for f32, for any number of rows and any processor. x: f32 [rows, padded_in].
void rows_f32(const float* x, int64_t x_stride, int64_t rows, const PackedLayout& layout, const float* weight,
              const float* bias, int64_t first_panel, int64_t last_panel, float* out, int64_t out_stride);

}  // namespace trireme::cpu
