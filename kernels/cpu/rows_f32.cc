// f32 products with a packed weight, for every processor Highway knows.

#include <algorithm>

#include "kernels/cpu/few_rows.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rows_f32.cc"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace trireme::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using F32 = hn::CappedTag<float, 16>;
constexpr int kLanes = static_cast<int>(hn::MaxLanes(F32()));
constexpr int kVectors = kLanes == 16 ? 4 : 2;  // columns worked on at once, in vectors
constexpr int kColumns = kVectors * kLanes;     // a divisor of the panel
constexpr int64_t kInner = 64;                  // input features at a time: 16 KiB, the L1 cache keeps them
constexpr int64_t kRowGroup = kLanes == 16 ? 6 : 4;  // rows whose sums fit the registers

/// sums[r][kColumns] += x[r][0, count) · weight columns, in order. For each input feature it asks for kLines
/// cache lines from `ahead` on.
template <int kRows, int kLines>
void multiply_block(const float* x, int64_t x_stride, const float* weight, int64_t count, const char* ahead,
                    float* sums) {
  const F32 d;
  hn::Vec<F32> s[kRows][kVectors];
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v) s[r][v] = hn::Load(d, sums + r * kPanel + v * kLanes);
  for (int64_t k = 0; k < count; ++k) {
    for (int line = 0; line < kLines; ++line) hwy::Prefetch(ahead + (k * kLines + line) * 64);
    hn::Vec<F32> columns[kVectors];
    for (int v = 0; v < kVectors; ++v) columns[v] = hn::Load(d, weight + k * kPanel + v * kLanes);
    for (int r = 0; r < kRows; ++r) {
      const auto factor = hn::Set(d, x[r * x_stride + k]);
      for (int v = 0; v < kVectors; ++v) s[r][v] = hn::MulAdd(factor, columns[v], s[r][v]);
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v) hn::Store(s[r][v], d, sums + r * kPanel + v * kLanes);
}

using MultiplyBlock = void (*)(const float*, int64_t, const float*, int64_t, const char*, float*);
template <int kLines>
constexpr MultiplyBlock kMultiplyBlock[] = {
    nullptr,
    multiply_block<1, kLines>,
    multiply_block<2, kLines>,
    multiply_block<3, kLines>,
    multiply_block<4, kLines>,
    multiply_block<5, kLines>,
    multiply_block<6, kLines>,
};

/// One block for all rows. The passes over it share the fetching of the next block, so that memory stays busy
/// while they multiply.
void multiply_rows(const float* x, int64_t x_stride, int64_t rows, const float* weight, int64_t count,
                   float* sums) {
  const int64_t groups = (rows + kRowGroup - 1) / kRowGroup, group = (rows + groups - 1) / groups;
  const int64_t passes = groups * (kPanel / kColumns), lines = passes == 1 ? 4 : passes <= 3 ? 2 : 1;
  const char* next = reinterpret_cast<const char*>(weight + kInner * kPanel);
  int64_t pass = 0;
  for (int64_t r = 0; r < rows; r += group) {
    for (int64_t c = 0; c < kPanel; c += kColumns, ++pass) {
      const MultiplyBlock* kernels = pass * lines >= 4 ? kMultiplyBlock<0>
                                     : lines == 4      ? kMultiplyBlock<4>
                                     : lines == 2      ? kMultiplyBlock<2>
                                                       : kMultiplyBlock<1>;
      kernels[std::min(group, rows - r)](x + r * x_stride, x_stride, weight + c, count,
                                         next + pass * lines * kInner * 64, sums + r * kPanel + c);
    }
  }
}

constexpr int64_t kMaxRows = 48;  // sums of one pass: 2 x 12 KiB

void panel_f32(const float* x, int64_t x_stride, int64_t rows, const float* weight, int64_t in,
               const float* bias, int64_t columns, float* out, int64_t out_stride) {
  alignas(64) float total[kMaxRows * kPanel];
  alignas(64) float sums[kMaxRows * kPanel];
  const int64_t run = onednn_k_run(in);
  for (int64_t begin = 0; begin < in; begin += run) {
    const int64_t end = std::min(in, begin + run);
    std::fill(sums, sums + rows * kPanel, 0.0f);
    for (int64_t k = begin; k < end; k += kInner) {
      multiply_rows(x + k, x_stride, rows, weight + k * kPanel, std::min(kInner, end - k), sums);
    }
    for (int64_t i = 0; i < rows * kPanel; ++i) total[i] = begin == 0 ? sums[i] : total[i] + sums[i];
  }
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c)
      out[r * out_stride + c] = bias == nullptr ? total[r * kPanel + c] : total[r * kPanel + c] + bias[c];
  }
}

void panels_f32(const float* x, int64_t x_stride, int64_t rows, const PackedLayout& layout,
                const float* weight, const float* bias, int64_t first_panel, int64_t last_panel, float* out,
                int64_t out_stride) {
  for (int64_t panel = first_panel; panel < last_panel; ++panel) {
    const int64_t column = panel * kPanel;
    for (int64_t r = 0; r < rows; r += kMaxRows) {
      panel_f32(x + r * x_stride, x_stride, std::min(kMaxRows, rows - r),
                weight + panel * layout.panel_elements(), layout.in_features,
                bias == nullptr ? nullptr : bias + column, std::min(kPanel, layout.out_features - column),
                out + r * out_stride + column, out_stride);
    }
  }
}

}  // namespace trireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace trireme::cpu {
HWY_EXPORT(panels_f32);

void rows_f32(const float* x, int64_t x_stride, int64_t rows, const PackedLayout& layout, const float* weight,
              const float* bias, int64_t first_panel, int64_t last_panel, float* out, int64_t out_stride) {
  HWY_DYNAMIC_DISPATCH(panels_f32)
  (x, x_stride, rows, layout, weight, bias, first_panel, last_panel, out, out_stride);
}

}  // namespace trireme::cpu
#endif  // HWY_ONCE
