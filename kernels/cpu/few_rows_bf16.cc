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
constexpr int64_t kBlockPairs = 64;            // 8 KiB of the panel: stays in the L1 cache for all rows
constexpr int kRowGroup = 6;                   // rows whose sums fit the registers, 4 vectors each

/// sums[r][64] += the products of `pairs` pairs of input features, in order; they start at zero where
/// `first`. Asks for the block after this one where `kPrefetch`.
template <int kRows, int kLines>
TRIREME_BF16_TARGET void multiply_block(const uint16_t* x, int64_t x_stride, const uint16_t* weight,
                                        int64_t pairs, bool first, const char* ahead, float* sums) {
  __m512 s[kRows][4];
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < 4; ++v)
      s[r][v] = first ? _mm512_setzero_ps() : _mm512_load_ps(sums + r * kPanel + 16 * v);
  for (int64_t p = 0; p < pairs; ++p) {
    const uint16_t* w = weight + p * kPairElements;
    __m512bh columns[4];
    for (int line = 0; line < kLines; ++line) _mm_prefetch(ahead + (p * kLines + line) * 64, _MM_HINT_T0);
    for (int v = 0; v < 4; ++v) columns[v] = reinterpret_cast<__m512bh>(_mm512_load_si512(w + v * 32));
    for (int r = 0; r < kRows; ++r) {
      int pair;
      std::memcpy(&pair, x + r * x_stride + 2 * p, sizeof pair);
      const __m512bh both = reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
      for (int v = 0; v < 4; ++v) s[r][v] = _mm512_dpbf16_ps(s[r][v], both, columns[v]);
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < 4; ++v) _mm512_store_ps(sums + r * kPanel + 16 * v, s[r][v]);
}

using MultiplyBlock = void (*)(const uint16_t*, int64_t, const uint16_t*, int64_t, bool, const char*, float*);
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

/// The groups of rows share the fetching of the next block, so that memory stays busy while they multiply.
const MultiplyBlock* block_kernels(int64_t groups, int64_t group) {
  if (groups == 1) return kMultiplyBlock<4>;
  if (groups <= 3) return group < 2 ? kMultiplyBlock<2> : kMultiplyBlock<0>;
  return group < 4 ? kMultiplyBlock<1> : kMultiplyBlock<0>;
}

struct Output {
  const float* bias;  // of the panel's first column, or null
  int64_t columns;
  float* out;
  int64_t stride;
};

/// The 64 columns of one panel for all rows.
TRIREME_BF16_TARGET void panel_rows(const uint16_t* x, int64_t x_stride, int64_t rows, const uint16_t* weight,
                                    int64_t in, const Output& output) {
  alignas(64) float total[kFewRows * kPanel], sums[kFewRows * kPanel];
  const int64_t run = onednn_k_run(in);
  const int64_t groups = (rows + kRowGroup - 1) / kRowGroup, group = (rows + groups - 1) / groups;
  for (int64_t begin = 0; begin < in; begin += run) {
    const int64_t end = std::min(in, begin + run);
    for (int64_t k = begin; k < end; k += 2 * kBlockPairs) {
      const int64_t pairs = std::min(kBlockPairs, (end - k) / 2);
      const char* next = reinterpret_cast<const char*>(weight + (k + 2 * kBlockPairs) * kPanel);
      for (int64_t g = 0; g < groups; ++g) {
        const int64_t r = g * group, lines = groups == 1 ? 4 : groups <= 3 ? 2 : 1;
        block_kernels(groups, g)[std::min(group, rows - r)](
            x + r * x_stride + k, x_stride, weight + k * kPanel, pairs, k == begin,
            next + g * lines * kBlockPairs * 64, sums + r * kPanel);
      }
    }
    for (int64_t i = 0; i < rows * kPanel; i += 16) {
      const __m512 s = _mm512_load_ps(sums + i);
      _mm512_store_ps(total + i, begin == 0 ? s : _mm512_add_ps(_mm512_load_ps(total + i), s));
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < output.columns; ++c) {
      const float sum = total[r * kPanel + c];
      output.out[r * output.stride + c] = output.bias == nullptr ? sum : sum + output.bias[c];
    }
  }
}

}  // namespace

bool has_bf16_dot_product() {
  return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
}

void few_rows_bf16(const uint16_t* x, int64_t x_stride, int64_t rows, const PackedLayout& layout,
                   const uint16_t* weight, const float* bias, int64_t first_panel, int64_t last_panel,
                   float* out, int64_t out_stride) {
  CHECK_LE(rows, kFewRows);
  for (int64_t panel = first_panel; panel < last_panel; ++panel) {
    const int64_t column = panel * kPanel;
    panel_rows(x, x_stride, rows, weight + panel * layout.panel_elements(), layout.padded_in(),
               {bias == nullptr ? nullptr : bias + column, std::min(kPanel, layout.out_features - column),
                out + column, out_stride});
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
