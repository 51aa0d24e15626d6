#include "kernels/cpu/packed_weight.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/check.h"
#include "kernels/cpu/convert.h"

namespace trireme::cpu {
namespace {

constexpr int64_t kTileIn = 32;  // input features converted at a time: one tile is at most 8 KiB

/// A tile of at most one panel x kTileIn elements, `tile[row][kTileIn]`, into the panel.
/// Neighbours belong to other writers, perhaps at this moment: nothing outside the tile is read or written.
void scatter_f32(const float* tile, int64_t rows, int64_t cols, float* panel, int64_t lane, int64_t in) {
  for (int64_t c = 0; c < cols; ++c) {
    float* out = panel + (in + c) * kPanel + lane;
    for (int64_t r = 0; r < rows; ++r) out[r] = tile[r * kTileIn + c];
  }
}

void scatter_bf16(const uint16_t* tile, int64_t rows, int64_t cols, uint16_t* panel, int64_t lane,
                  int64_t in) {
  int64_t c = 0;
  auto single = [&] {
    uint16_t* out = panel + (in + c) / 2 * (2 * kPanel) + lane * 2 + (in + c) % 2;
    for (int64_t r = 0; r < rows; ++r) out[2 * r] = tile[r * kTileIn + c];
    ++c;
  };
  if (in % 2 == 1) single();
  for (; c + 2 <= cols; c += 2) {
    uint16_t* out = panel + (in + c) / 2 * (2 * kPanel) + lane * 2;
    for (int64_t r = 0; r < rows; ++r) std::memcpy(out + 2 * r, tile + r * kTileIn + c, 4);
  }
  if (c < cols) single();
}

}  // namespace

PackedWeightBuilder::PackedWeightBuilder(const PackedLayout& layout, HostMemory memory)
    : layout_(layout), memory_(std::move(memory)) {}

void PackedWeightBuilder::write(int64_t row, int64_t num_rows, int64_t col, int64_t num_cols,
                                const void* source, int64_t source_stride, DType source_dtype) {
  CHECK_GE(row, 0);
  CHECK_GE(col, 0);
  CHECK_LE(row + num_rows, layout_.out_features);
  CHECK_LE(col + num_cols, layout_.in_features);
  CHECK_GE(source_stride, num_cols);
  CHECK_NE(dtype_name(source_dtype), "i32");
  const size_t source_bytes = dtype_bytes(source_dtype), bytes = dtype_bytes(layout_.dtype);
  alignas(64) char tile[kPanel * kTileIn * sizeof(float)];
  for (int64_t r = 0; r < num_rows;) {
    const int64_t lane = (row + r) % kPanel, rows = std::min(num_rows - r, kPanel - lane);
    char* panel = static_cast<char*>(memory_.data()) +
                  static_cast<size_t>((row + r) / kPanel * layout_.panel_elements()) * bytes;
    for (int64_t c = 0; c < num_cols;) {
      const int64_t cols = std::min(num_cols - c, kTileIn - (col + c) % kTileIn);
      for (int64_t i = 0; i < rows; ++i) {
        const char* from = static_cast<const char*>(source) +
                           static_cast<size_t>((r + i) * source_stride + c) * source_bytes;
        convert(from, source_dtype, tile + static_cast<size_t>(i * kTileIn) * bytes, layout_.dtype, cols);
      }
      if (layout_.dtype == DType::bf16) {
        scatter_bf16(reinterpret_cast<uint16_t*>(tile), rows, cols, reinterpret_cast<uint16_t*>(panel), lane,
                     col + c);
      } else {
        scatter_f32(reinterpret_cast<float*>(tile), rows, cols, reinterpret_cast<float*>(panel), lane,
                    col + c);
      }
      c += cols;
    }
    r += rows;
  }
}

std::unique_ptr<Weight> PackedWeightBuilder::finish() {
  TRIREME_CHECK(memory_.data() != nullptr);  // finish is called once
  return std::make_unique<PackedWeight>(layout_, std::move(memory_));
}

}  // namespace trireme::cpu
