// The dot-product instruction vdpbf16ps is not in Highway 1.0.3, hence intrinsics, all in this file.

#include "kernels/check.h"
#include "kernels/cpu/few_rows.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#define TRIREME_BF16_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))

namespace trireme::cpu {
namespace {

constexpr int64_t kPairElements = 2 * kPanel;  // of one pair of input features: 256 bytes
constexpr int64_t kPrefetchPairs = 16;         // 4 KiB ahead

/// sums[r][64] of `pairs` pairs of input features, from zero. kRows x 4 vectors of sums stay in registers.
template <int kRows>
TRIREME_BF16_TARGET inline void dot_run(const uint16_t* x, int64_t x_stride, const uint16_t* weight,
                                        int64_t pairs, __m512 (&sums)[kRows][4]) {
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < 4; ++v) sums[r][v] = _mm512_setzero_ps();
  for (int64_t p = 0; p < pairs; ++p) {
    const uint16_t* w = weight + p * kPairElements;
    __m512bh columns[4];
    for (int v = 0; v < 4; ++v) {
      _mm_prefetch(reinterpret_cast<const char*>(w + kPrefetchPairs * kPairElements + v * 32), _MM_HINT_T0);
      columns[v] = reinterpret_cast<__m512bh>(_mm512_load_si512(w + v * 32));
    }
    for (int r = 0; r < kRows; ++r) {
      int pair;
      std::memcpy(&pair, x + r * x_stride + 2 * p, sizeof pair);
      const __m512bh both = reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
      for (int v = 0; v < 4; ++v) sums[r][v] = _mm512_dpbf16_ps(sums[r][v], both, columns[v]);
    }
  }
}

template <int kRows>
TRIREME_BF16_TARGET void panel_rows(const uint16_t* x, int64_t x_stride, const uint16_t* weight, int64_t in,
                                    int64_t run, const float* bias, int64_t columns, float* out,
                                    int64_t out_stride) {
  alignas(64) float total[kRows][kPanel];
  for (int64_t begin = 0; begin < in; begin += run) {
    __m512 sums[kRows][4];
    dot_run<kRows>(x + begin, x_stride, weight + begin * kPanel, std::min(run, in - begin) / 2, sums);
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < 4; ++v) {
        float* at = total[r] + 16 * v;
        _mm512_store_ps(at, begin == 0 ? sums[r][v] : _mm512_add_ps(_mm512_load_ps(at), sums[r][v]));
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int64_t c = 0; c < columns; ++c)
      out[r * out_stride + c] = bias == nullptr ? total[r][c] : total[r][c] + bias[c];
  }
}

using PanelRows = void (*)(const uint16_t*, int64_t, const uint16_t*, int64_t, int64_t, const float*, int64_t,
                           float*, int64_t);
constexpr PanelRows kPanelRows[] = {nullptr,       panel_rows<1>, panel_rows<2>, panel_rows<3>,
                                    panel_rows<4>, panel_rows<5>, panel_rows<6>};

}  // namespace

bool has_bf16_dot_product() {
  return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
}

void few_rows_bf16(const uint16_t* x, int64_t x_stride, int64_t rows, const PackedLayout& layout,
                   const uint16_t* weight, const float* bias, int64_t first_panel, int64_t last_panel,
                   float* out, int64_t out_stride) {
  const int64_t in = layout.padded_in(), run = onednn_k_run(in);
  const int64_t block = rows <= 6 ? rows : (rows + 1) / 2;
  for (int64_t panel = first_panel; panel < last_panel; ++panel) {
    const int64_t column = panel * kPanel, columns = std::min(kPanel, layout.out_features - column);
    for (int64_t r = 0; r < rows; r += block) {
      kPanelRows[std::min(block, rows - r)](
          x + r * x_stride, x_stride, weight + panel * layout.panel_elements(), in, run,
          bias == nullptr ? nullptr : bias + column, columns, out + r * out_stride + column, out_stride);
    }
  }
}

}  // namespace trireme::cpu

#else

namespace trireme::cpu {

bool has_bf16_dot_product() { return false; }

void few_rows_bf16(const uint16_t*, int64_t, int64_t, const PackedLayout&, const uint16_t*, const float*,
                   int64_t, int64_t, float*, int64_t) {
  check_failed(__FILE__, __LINE__, "bf16 products need AVX512_BF16");
}

}  // namespace trireme::cpu
#endif
