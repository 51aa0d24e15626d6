// cuBLASLt's part of the stand-in: one product, D = alpha * op(A) * op(B) + beta * C, checked as strictly as
// the library's documentation is.

#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <bit>

struct SimtBlasHandle {};

namespace {

size_t element_bytes(cudaDataType_t type) { return type == CUDA_R_32F ? 4 : 2; }

float read(const void* data, cudaDataType_t type, uint64_t index) {
  if (type == CUDA_R_16F) return __half2float(static_cast<const __half*>(data)[index]);
  if (type == CUDA_R_16BF) return __bfloat162float(static_cast<const __nv_bfloat16*>(data)[index]);
  return static_cast<const float*>(data)[index];
}

void write(void* data, cudaDataType_t type, uint64_t index, float value) {
  if (type == CUDA_R_16F)
    static_cast<__half*>(data)[index] = __float2half_rn(value);
  else if (type == CUDA_R_16BF)
    static_cast<__nv_bfloat16*>(data)[index] = __float2bfloat16_rn(value);
  else
    static_cast<float*>(data)[index] = value;
}

/// op(X): element (row, col), op transposing what is stored column by column.
struct Operand {
  const void* data;
  cublasLtMatrixLayoutOpaque_t layout;
  bool transposed;

  uint64_t rows() const { return transposed ? layout.cols : layout.rows; }
  uint64_t cols() const { return transposed ? layout.rows : layout.cols; }
  float at(uint64_t row, uint64_t col) const {
    const uint64_t ld = static_cast<uint64_t>(layout.ld);
    return read(data, layout.type, transposed ? row * ld + col : col * ld + row);
  }
};

bool is_aligned(const void* data, const cublasLtMatrixLayoutOpaque_t& layout, uint32_t bytes) {
  return reinterpret_cast<uintptr_t>(data) % bytes == 0 &&
         static_cast<size_t>(layout.ld) * element_bytes(layout.type) % bytes == 0;
}

bool shapes_agree(const cublasLtMatmulDescOpaque_t& operation, const cublasLtMatrixLayoutOpaque_t& a,
                  const cublasLtMatrixLayoutOpaque_t& b, const cublasLtMatrixLayoutOpaque_t& c,
                  const cublasLtMatrixLayoutOpaque_t& d) {
  const Operand left{nullptr, a, operation.transa == CUBLAS_OP_T},
      right{nullptr, b, operation.transb == CUBLAS_OP_T};
  const bool types = a.type == b.type && c.type == d.type && (d.type == a.type || d.type == CUDA_R_32F);
  return types && left.cols() == right.rows() && d.rows == left.rows() && d.cols == right.cols() &&
         c.rows == d.rows && c.cols == d.cols;
}

float rounded(float value, cudaDataType_t type) {
  float memory = 0;
  write(&memory, type, 0, value);
  return read(&memory, type, 0);
}

void multiply(const Operand& a, const Operand& b, float alpha, float beta, const Operand& c, void* d,
              const cublasLtMatrixLayoutOpaque_t& layout, bool rounds_parts) {
  const int64_t cols = static_cast<int64_t>(layout.cols);
#pragma omp parallel for
  for (int64_t col = 0; col < cols; ++col) {
    for (uint64_t row = 0; row < layout.rows; ++row) {
      float sum = 0;
      for (uint64_t k = 0; k < a.cols(); ++k) {
        if (rounds_parts && k == a.cols() / 2) sum = rounded(sum, layout.type);
        sum += a.at(row, k) * b.at(k, static_cast<uint64_t>(col));
      }
      sum *= alpha;
      // What is not asked for is not read: it may be NaN.
      if (beta != 0) sum += beta * c.at(row, static_cast<uint64_t>(col));
      write(d, layout.type, static_cast<uint64_t>(col * layout.ld) + row, sum);
    }
  }
}

}  // namespace

const char* cublasLtGetStatusString(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "CUBLAS_STATUS_NOT_SUPPORTED";
  }
  return "unrecognized status";
}
cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = new SimtBlasHandle;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* operation, cublasComputeType_t,
                                        cudaDataType_t) {
  *operation = new cublasLtMatmulDescOpaque_t;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t operation) {
  delete operation;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t operation,
                                              cublasLtMatmulDescAttributes_t attribute, const void* value,
                                              size_t bytes) {
  if (bytes != sizeof(cublasOperation_t)) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(attribute == CUBLASLT_MATMUL_DESC_TRANSA ? &operation->transa : &operation->transb, value,
              bytes);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutInit(cublasLtMatrixLayout_t layout, cudaDataType_t type, uint64_t rows,
                                        uint64_t cols, int64_t ld) {
  *layout = {type, rows, cols, ld};
  return ld < static_cast<int64_t>(rows) ? CUBLAS_STATUS_INVALID_VALUE : CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceInit(cublasLtMatmulPreference_t preference) {
  *preference = {0, {256, 256, 256, 256}, CUBLASLT_REDUCTION_SCHEME_MASK};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void* value, size_t bytes) {
  if (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) {
    if (bytes != sizeof preference->workspace_bytes) return CUBLAS_STATUS_INVALID_VALUE;
    std::memcpy(&preference->workspace_bytes, value, bytes);
  } else if (attribute == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK) {
    if (bytes != sizeof preference->reductions) return CUBLAS_STATUS_INVALID_VALUE;
    std::memcpy(&preference->reductions, value, bytes);
  } else {
    if (bytes != sizeof preference->alignment[0]) return CUBLAS_STATUS_INVALID_VALUE;
    std::memcpy(&preference->alignment[attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], value, bytes);
  }
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t operation,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t* results, int* count) {
  if (!shapes_agree(*operation, *a, *b, *c, *d)) return CUBLAS_STATUS_NOT_SUPPORTED;
  *count = std::min(wanted, d->cols <= 64 ? 3 : 1);
  const uint32_t alignment = *std::min_element(preference->alignment, preference->alignment + 4);
  const bool rounds_parts = (preference->reductions & (CUBLASLT_REDUCTION_SCHEME_INPLACE |
                                                       CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE)) != 0;
  for (int i = 0; i < *count; ++i) {
    const int kernel = static_cast<int>(std::bit_width(d->cols)) * 8 + i;
    results[i] = {{i, alignment, rounds_parts, kernel}, 0, CUBLAS_STATUS_SUCCESS};
  }
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t, cublasLtMatmulDesc_t operation,
                                       cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t*, cublasLtMatmulHeuristicResult_t* result) {
  result->workspaceSize = 0;
  result->state =
      shapes_agree(*operation, *a, *b, *c, *d) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
  return result->state;
}
cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t operation, const void* alpha,
                              const void* a, cublasLtMatrixLayout_t a_layout, const void* b,
                              cublasLtMatrixLayout_t b_layout, const void* beta, const void* c,
                              cublasLtMatrixLayout_t c_layout, void* d, cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t* algorithm, void*, size_t, cudaStream_t stream) {
  if (!shapes_agree(*operation, *a_layout, *b_layout, *c_layout, *d_layout))
    return CUBLAS_STATUS_NOT_SUPPORTED;
  const uint32_t alignment = algorithm->alignment;
  if (!is_aligned(a, *a_layout, alignment) || !is_aligned(b, *b_layout, alignment) ||
      !is_aligned(c, *c_layout, alignment) || !is_aligned(d, *d_layout, alignment))
    return CUBLAS_STATUS_INVALID_VALUE;
  simt::load_code(algorithm->kernel);
  const Operand left{a, *a_layout, operation->transa == CUBLAS_OP_T},
      right{b, *b_layout, operation->transb == CUBLAS_OP_T}, before{c, *c_layout, false};
  simt::enqueue_work(stream,
                     [=, scale = *static_cast<const float*>(alpha), keep = *static_cast<const float*>(beta),
                      layout = *d_layout, rounds_parts = algorithm->rounds_parts] {
                       multiply(left, right, scale, keep, before, d, layout, rounds_parts);
                     });
  return CUBLAS_STATUS_SUCCESS;
}
