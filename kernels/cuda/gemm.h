#pragma once
// Products of many rows by cuBLASLt, with the algorithm that was fastest when it was tried.

#include <cublasLt.h>

#include <map>
#include <tuple>

#include "kernels/cuda/runtime.h"
#include "kernels/tensor.h"

namespace trireme::cuda {

class Gemm {
 public:
  explicit Gemm(const Stream& stream) : stream_(stream) {}
  ~Gemm();
  Gemm(const Gemm&) = delete;
  Gemm& operator=(const Gemm&) = delete;

  /// The library's handle and workspace, once. RESOURCE_EXHAUSTED.
  absl::Status reserve();

  /// Whether the library takes these: rows that begin at multiples of 16 bytes.
  static bool takes(const Tensor& x, const Tensor& weight, const Tensor& out);

  /// out = x · weight^T, plus out where `accumulate`; after reserve(). x: [rows, in], weight: [out_features,
  /// in], of one dtype; out: of that dtype or f32. Never measures: a shape that measure() has not seen gets
  /// what the library thinks best.
  void multiply(const Tensor& x, const Tensor& weight, bool accumulate, const Tensor& out);

  /// Tries the library's proposals for this shape and keeps the fastest for all numbers of rows of its class
  /// (9 to 16, 17 to 32, ...), whose kernel is loaded then: a first request does not wait for that, nor find
  /// the device's memory full. Waits for the device where there are several; `out` is overwritten.
  void measure(const Tensor& x, const Tensor& weight, const Tensor& out);

  /// Whether there is nothing left to measure for a class of rows of such a product.
  bool has_measured(const Tensor& weight, int64_t rows_of_class, DType dtype, DType out_dtype) const {
    return choices_.count({weight.rows, weight.cols, rows_of_class, dtype, out_dtype}) > 0;
  }

  /// Choices made so far.
  int64_t num_choices() const { return static_cast<int64_t>(choices_.size()); }

  /// The largest number of rows of the class that `rows` belongs to.
  static int64_t rows_of_class(int64_t rows);

 private:
  struct Problem;
  /// Out features, in features, rows, dtype, dtype of the output.
  using Shape = std::tuple<int64_t, int64_t, int64_t, DType, DType>;

  void enqueue(const Problem& problem, const cublasLtMatmulAlgo_t& algorithm, bool accumulate);
  bool fits(Problem& problem, const cublasLtMatmulAlgo_t& algorithm) const;
  float milliseconds(const Problem& problem, const cublasLtMatmulAlgo_t& algorithm);
  const cublasLtMatmulAlgo_t& algorithm_for(Problem& problem);

  const Stream& stream_;
  cublasLtHandle_t handle_ = nullptr;
  cublasLtMatmulDesc_t operation_ = nullptr;
  Memory workspace_;
  std::map<Shape, cublasLtMatmulAlgo_t> choices_;  // for classes of rows
  std::map<Shape, cublasLtMatmulAlgo_t> checked_;  // for numbers of rows that were met
};

/// Every row of out = bias, rounded to out's dtype. bias: f32 [cols].
void fill_rows(cudaStream_t stream, const Tensor& bias, const Tensor& out);

}  // namespace trireme::cuda
