// Rows of packed tables, and of plain activations.

#include <cstring>

#include "kernels/cpu/convert.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/parallel.h"

namespace trireme::cpu {
namespace {

/// Row `row` of the packed matrix, widened to f32.
void unpack_row(const PackedWeight& table, int64_t row, float* out) {
  const PackedLayout& layout = table.layout();
  if (layout.dtype == DType::f32) {
    const float* from = static_cast<const float*>(table.data()) + layout.offset(row, 0);
    for (int64_t i = 0; i < layout.in_features; ++i) out[i] = from[i * kPanel];
    return;
  }
  const uint16_t* from = static_cast<const uint16_t*>(table.data()) + layout.offset(row, 0);
  for (int64_t i = 0; i < layout.in_features; ++i) out[i] = bf16_to_f32(from[i / 2 * (2 * kPanel) + i % 2]);
}

}  // namespace

void CpuBackend::do_embedding(const Tensor& ids, const Weight& table, int64_t first_row, const Tensor& out) {
  const auto& packed = dynamic_cast<const PackedWeight&>(table);
  parallel_ranges(threads_, out.rows, 2, [&](int, Range rows) {
    for (int64_t r = rows.begin; r < rows.end; ++r) {
      float* to = out.as<float>() + r * out.row_stride;
      const int64_t row = ids.as<int32_t>()[r] - first_row;
      if (row >= 0 && row < table.out_features()) {
        unpack_row(packed, row, to);
      } else {
        std::memset(to, 0, static_cast<size_t>(out.cols) * sizeof(float));
      }
    }
  });
}

void CpuBackend::do_gather_rows(const Tensor& x, const Tensor& row_ids, const Tensor& out) {
  for (int64_t r = 0; r < out.rows; ++r) {
    const int64_t row = row_ids.as<int32_t>()[r];
    CHECK_GE(row, 0);
    CHECK_LT(row, x.rows);
    std::memcpy(out.as<float>() + r * out.row_stride, x.as<float>() + row * x.row_stride,
                static_cast<size_t>(out.cols) * sizeof(float));
  }
}

}  // namespace trireme::cpu
