// Whether our own kernel or the library multiplies few rows faster, tried at the start with the weights there
// are.

#include <algorithm>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/few_rows.h"

namespace trireme::cuda {
namespace {

// Weights of one shape that are multiplied in turn: decoding finds none of them in a cache.
constexpr size_t kTimedBytes = size_t{256} << 20, kMostTimed = 16;
constexpr int kTimedRuns = 3;

/// The least time of a few calls on the stream, after one that is not timed.
template <typename Call>
float milliseconds_of(const Stream& stream, Call call) {
  Event begin(true), end(true);
  float least = std::numeric_limits<float>::max();
  call();
  for (int i = 0; i < kTimedRuns; ++i) {
    begin.record(stream);
    call();
    end.record(stream);
    end.synchronize();
    least = std::min(least, end.milliseconds_since(begin));
  }
  return least;
}

}  // namespace

std::string FewRowsChoice::text() const {
  std::map<int64_t, std::pair<int, int>> by_rows;  // of the library, of all
  for (const auto& [key, is_faster] : library_is_faster_) {
    auto& [of_library, all] = by_rows[std::get<0>(key)];
    of_library += is_faster;
    ++all;
  }
  if (by_rows.empty()) return "";
  std::vector<std::string> parts;
  for (const auto& [rows, counts] : by_rows)
    parts.push_back(absl::StrCat(counts.first, " of ", counts.second,
                                 rows == 1 ? " with 1 row" : absl::StrCat(" with up to ", rows)));
  return absl::StrCat("products of few rows: cuBLASLt is faster for ", absl::StrJoin(parts, ", "),
                      "; the rest is our own kernel's");
}

void CudaBackend::choose_few_rows(int64_t max_features) {
  if (!device_.measures_few_rows) return;
  std::map<std::pair<int64_t, int64_t>, std::vector<Tensor>> alike;
  for (const CudaWeight* weight : weights_) {
    const Tensor matrix = weight->tensor();
    std::vector<Tensor>& group = alike[{matrix.rows, matrix.cols}];
    if (group.size() < kMostTimed && group.size() * matrix.bytes() < kTimedBytes) group.push_back(matrix);
  }
  for (const auto& [shape, group] : alike) {
    const auto [out_features, in_features] = shape;
    const DType out_dtype = out_features > max_features ? DType::f32 : dtype_;  // logits
    absl::StatusOr<Memory> x = Memory::allocate(Memory::Place::device,
                                                kMaxFewRows * in_features * dtype_bytes(dtype_),
                                                "measuring products"),
                           out = Memory::allocate(Memory::Place::device,
                                                  kMaxFewRows * out_features * dtype_bytes(out_dtype),
                                                  "measuring products");
    if (!x.ok() || !out.ok()) return;  // our own kernel will do
    CUDA_CHECK(cudaMemsetAsync(x->data(), 0, x->bytes(), stream_));
    for (int64_t rows = 1; rows <= kMaxFewRows; rows *= 2)
      time_few_rows(group, Tensor(x->data(), dtype_, rows, in_features),
                    Tensor(out->data(), out_dtype, rows, out_features));
    stream_.synchronize();
  }
}

void CudaBackend::time_few_rows(const std::vector<Tensor>& weights, const Tensor& x, const Tensor& out) {
  const FewRowsChoice::Product product{out.cols, x.cols, x.rows, out.dtype};
  if (few_rows_.has(product) || !Gemm::takes(x, weights[0], out)) return;
  gemm_.measure(x, weights[0], out);
  const float own = milliseconds_of(stream_, [&] {
    for (const Tensor& weight : weights) matmul_few_rows(stream_, x, weight, Tensor(), out);
  });
  const float library = milliseconds_of(stream_, [&] {
    for (const Tensor& weight : weights) gemm_.multiply(x, weight, /*accumulate=*/false, out);
  });
  few_rows_.note(product, own, library);
}

}  // namespace trireme::cuda
