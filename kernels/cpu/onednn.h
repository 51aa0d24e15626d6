#pragma once
// Matrix products by oneDNN. Only onednn.cc knows its version (2.6; 3.x changed the API).

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/cpu/packed_weight.h"

namespace trireme::cpu {

/// out[rows, N] = x[rows, K] · weight^T + bias, with K = weight.in_features() for f32 and padded_in() for
/// bf16. Products are cached by shape: a new number of rows makes one more primitive.
class OneDnn {
 public:
  explicit OneDnn(int threads);
  ~OneDnn();

  /// Whether this processor's product reads the packed layout of `dtype` and gives a row the same bits
  /// whatever the rows beside it. oneDNN 2.6 does from AVX-512 on; what it has for AVX2 changes a row's bits
  /// with the number of rows.
  bool supports(DType dtype) const;
  /// The instruction set oneDNN uses, for people.
  std::string isa() const;

  /// x: [rows, padded_in], f32 or bf16 as the weight; bias: [N] or null; out: [rows, N]. All contiguous: for
  /// rows further apart oneDNN has but its slow reference product, in another order of summing.
  void matmul(const void* x, int64_t rows, const PackedWeight& weight, const float* bias, float* out);
  /// Primitives made so far.
  int64_t num_primitives() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Rate in GFLOP/s of oneDNN's product [m, k] x [k, n] with its weights packed, the median of a few runs on
/// `threads` threads. `dtype`: f32 or bf16. UNIMPLEMENTED where oneDNN cannot.
absl::StatusOr<double> measure_product_rate(int64_t m, int64_t n, int64_t k, DType dtype, int threads);

}  // namespace trireme::cpu
