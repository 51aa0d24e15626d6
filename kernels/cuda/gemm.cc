#include "kernels/cuda/gemm.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <vector>

#include "kernels/check.h"

namespace trireme::cuda {
namespace {

constexpr size_t kWorkspaceBytes = size_t{32} << 20;  // what NVIDIA advises for Hopper
constexpr int kMostProposals = 8;
constexpr int kTimedRuns = 3;
constexpr uint32_t kAlignBytes = 16;

void check_library(cublasStatus_t status, const char* what, const char* file, int line) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  check_failed(file, line, std::string(what) + ": " + cublasLtGetStatusString(status));
}
#define CUBLAS_CHECK(expression) check_library((expression), #expression, __FILE__, __LINE__)

cudaDataType_t library_type(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return CUDA_R_32F;
    case DType::f16:
      return CUDA_R_16F;
    case DType::bf16:
      return CUDA_R_16BF;
    case DType::i32:
      break;
  }
  TRIREME_CHECK(false && "products are of f32, f16 or bf16");
  return CUDA_R_32F;
}

/// Row-major here is column-major there: the matrix, transposed.
cublasLtMatrixLayoutOpaque_t layout_of(const Tensor& t) {
  cublasLtMatrixLayoutOpaque_t layout;
  CUBLAS_CHECK(cublasLtMatrixLayoutInit(&layout, library_type(t.dtype), static_cast<uint64_t>(t.cols),
                                        static_cast<uint64_t>(t.rows), t.rows > 1 ? t.row_stride : t.cols));
  return layout;
}

bool aligned(const Tensor& t) {
  return reinterpret_cast<uintptr_t>(t.data) % kAlignBytes == 0 &&
         static_cast<size_t>(t.row_stride) * dtype_bytes(t.dtype) % kAlignBytes == 0;
}

}  // namespace

/// In the library's terms out^T = weight · x^T.
struct Gemm::Problem {
  Problem(const Tensor& x_in, const Tensor& weight_in, const Tensor& out_in)
      : x(x_in), weight(weight_in), out(out_in), a(layout_of(weight)), b(layout_of(x)), d(layout_of(out)) {}
  Shape shape(int64_t rows) const { return {weight.rows, weight.cols, rows, x.dtype, out.dtype}; }

  const Tensor &x, &weight, &out;
  cublasLtMatrixLayoutOpaque_t a, b, d;
};

Gemm::~Gemm() {
  if (operation_ != nullptr) CUBLAS_CHECK(cublasLtMatmulDescDestroy(operation_));
  if (handle_ != nullptr) CUBLAS_CHECK(cublasLtDestroy(handle_));
}

absl::Status Gemm::reserve() {
  if (handle_ != nullptr) return absl::OkStatus();
  absl::StatusOr<Memory> memory = Memory::allocate(Memory::Place::device, kWorkspaceBytes, "cuBLASLt");
  if (!memory.ok()) return memory.status();
  workspace_ = *std::move(memory);
  CUBLAS_CHECK(cublasLtCreate(&handle_));
  CUBLAS_CHECK(cublasLtMatmulDescCreate(&operation_, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  const cublasOperation_t transposed = CUBLAS_OP_T;
  CUBLAS_CHECK(cublasLtMatmulDescSetAttribute(operation_, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                              sizeof transposed));
  return absl::OkStatus();
}

bool Gemm::takes(const Tensor& x, const Tensor& weight, const Tensor& out) {
  return aligned(x) && aligned(weight) && aligned(out);
}

int64_t Gemm::rows_of_class(int64_t rows) {
  return static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(rows)));
}

void Gemm::enqueue(const Problem& p, const cublasLtMatmulAlgo_t& algorithm, bool accumulate) {
  const float one = 1, beta = accumulate ? 1 : 0;
  // The descriptions are inputs, though the library's types do not say so.
  Problem& q = const_cast<Problem&>(p);
  CUBLAS_CHECK(cublasLtMatmul(handle_, operation_, &one, p.weight.data, &q.a, p.x.data, &q.b, &beta,
                              p.out.data, &q.d, p.out.data, &q.d, &algorithm, workspace_.data(),
                              workspace_.bytes(), stream_));
}

bool Gemm::fits(Problem& p, const cublasLtMatmulAlgo_t& algorithm) const {
  cublasLtMatmulHeuristicResult_t result{};
  return cublasLtMatmulAlgoCheck(handle_, operation_, &p.a, &p.b, &p.d, &p.d, &algorithm, &result) ==
             CUBLAS_STATUS_SUCCESS &&
         result.workspaceSize <= workspace_.bytes();
}

namespace {

std::vector<cublasLtMatmulAlgo_t> propose(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation,
                                          cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                          cublasLtMatrixLayout_t d, int most) {
  cublasLtMatmulPreferenceOpaque_t preference;
  CUBLAS_CHECK(cublasLtMatmulPreferenceInit(&preference));
  CUBLAS_CHECK(cublasLtMatmulPreferenceSetAttribute(&preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                    &kWorkspaceBytes, sizeof kWorkspaceBytes));
  // A sum that is split up is put together in f32, not in the narrow output.
  constexpr uint32_t kReductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  CUBLAS_CHECK(cublasLtMatmulPreferenceSetAttribute(&preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                                    &kReductions, sizeof kReductions));
  for (const auto attribute :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    CUBLAS_CHECK(
        cublasLtMatmulPreferenceSetAttribute(&preference, attribute, &kAlignBytes, sizeof kAlignBytes));
  }
  cublasLtMatmulHeuristicResult_t results[kMostProposals] = {};
  int count = 0;
  CUBLAS_CHECK(
      cublasLtMatmulAlgoGetHeuristic(handle, operation, a, b, d, d, &preference, most, results, &count));
  std::vector<cublasLtMatmulAlgo_t> algorithms;
  for (int i = 0; i < count; ++i)
    if (results[i].state == CUBLAS_STATUS_SUCCESS) algorithms.push_back(results[i].algo);
  TRIREME_CHECK(!algorithms.empty());
  return algorithms;
}

}  // namespace

const cublasLtMatmulAlgo_t& Gemm::algorithm_for(Problem& p) {
  const auto known = checked_.find(p.shape(p.x.rows));
  if (known != checked_.end()) return known->second;
  const auto choice = choices_.find(p.shape(rows_of_class(p.x.rows)));
  cublasLtMatmulAlgo_t algorithm;
  if (choice != choices_.end() && fits(p, choice->second)) {
    algorithm = choice->second;
  } else {
    algorithm = propose(handle_, operation_, &p.a, &p.b, &p.d, 1)[0];
    choices_.emplace(p.shape(rows_of_class(p.x.rows)), algorithm);
  }
  return checked_.emplace(p.shape(p.x.rows), algorithm).first->second;
}

void Gemm::multiply(const Tensor& x, const Tensor& weight, bool accumulate, const Tensor& out) {
  Problem problem(x, weight, out);
  enqueue(problem, algorithm_for(problem), accumulate);
}

float Gemm::milliseconds(const Problem& problem, const cublasLtMatmulAlgo_t& algorithm) {
  Event begin(true), end(true);
  float least = std::numeric_limits<float>::max();
  enqueue(problem, algorithm, false);
  for (int i = 0; i < kTimedRuns; ++i) {
    begin.record(stream_);
    enqueue(problem, algorithm, false);
    end.record(stream_);
    end.synchronize();
    least = std::min(least, end.milliseconds_since(begin));
  }
  return least;
}

void Gemm::measure(const Tensor& x, const Tensor& weight, const Tensor& out) {
  Problem problem(x, weight, out);
  const Shape shape = problem.shape(rows_of_class(x.rows));
  if (choices_.count(shape) > 0) return;
  const auto proposals = propose(handle_, operation_, &problem.a, &problem.b, &problem.d, kMostProposals);
  if (proposals.size() == 1) enqueue(problem, proposals[0], false);  // which loads its kernel now
  const cublasLtMatmulAlgo_t* best = &proposals[0];
  float least = std::numeric_limits<float>::max();
  for (const cublasLtMatmulAlgo_t& algorithm : proposals) {
    const float time = proposals.size() > 1 ? milliseconds(problem, algorithm) : 0;
    if (time >= least) continue;
    least = time;
    best = &algorithm;
  }
  choices_.emplace(shape, *best);
}

}  // namespace trireme::cuda
