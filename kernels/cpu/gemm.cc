// Matrix products. Few rows: own kernels, bound by reading the weight. More: oneDNN. Both give a row the same
// bits.

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "kernels/cpu/convert.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/few_rows.h"
#include "kernels/cpu/parallel.h"

namespace trireme::cpu {

/// Rows of x in the weight's dtype, zero up to padded_in(): a workspace, or x itself where it is that
/// already.
Tensor CpuBackend::padded_rows(const Tensor& x, const PackedLayout& layout) {
  const int64_t in = layout.padded_in();
  if (layout.dtype == DType::f32 && in == x.cols && x.contiguous()) return x;
  const size_t bytes = dtype_bytes(layout.dtype);
  char* rows_data = static_cast<char*>(rows_.get(static_cast<size_t>(x.rows * in) * bytes, threads_));
  parallel_ranges(threads_, x.rows, kFewRows + 1, [&](int, Range rows) {
    for (int64_t r = rows.begin; r < rows.end; ++r) {
      char* row = rows_data + static_cast<size_t>(r * in) * bytes;
      convert(x.as<float>() + r * x.row_stride, DType::f32, row, layout.dtype, x.cols);
      std::memset(row + static_cast<size_t>(x.cols) * bytes, 0, static_cast<size_t>(in - x.cols) * bytes);
    }
  });
  return {rows_data, layout.dtype, x.rows, in};
}

void CpuBackend::do_matmul(const Tensor& x, const Weight& weight, const Tensor& bias, const Tensor& out) {
  const auto& packed = dynamic_cast<const PackedWeight&>(weight);
  const PackedLayout& layout = packed.layout();
  const Tensor rows = padded_rows(x, layout);
  if (x.rows > kFewRows && onednn_.supports(layout.dtype)) {
    float* to = out.as<float>();
    if (!out.contiguous())
      to = static_cast<float*>(out_.get(static_cast<size_t>(out.size()) * sizeof(float), threads_));
    onednn_.matmul(rows.data, x.rows, packed, bias.as<float>(), to);
    if (out.contiguous()) return;
    for (int64_t r = 0; r < out.rows; ++r)
      std::copy(to + r * out.cols, to + (r + 1) * out.cols, out.as<float>() + r * out.row_stride);
    return;
  }
  const auto multiply = [&](auto kernel, auto* typed) {
    using Element = std::remove_pointer_t<decltype(typed)>;
    parallel_ranges(threads_, layout.num_panels(), 2, [&](int, Range panels) {
      kernel(rows.as<Element>(), rows.row_stride, x.rows, layout, static_cast<const Element*>(packed.data()),
             bias.as<float>(), panels.begin, panels.end, out.as<float>(), out.row_stride);
    });
  };
  if (layout.dtype == DType::f32) {
    multiply(rows_f32, static_cast<float*>(nullptr));
  } else {
    multiply(few_rows_bf16, static_cast<uint16_t*>(nullptr));
  }
}

}  // namespace trireme::cpu
