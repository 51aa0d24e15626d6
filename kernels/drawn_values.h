#pragma once
// Weights that are drawn instead of read: an element depends on its tensor's key and its place in the whole
// tensor alone, so that any part of it can be drawn by itself, on any device.

#include <array>
#include <cstddef>
#include <cstdint>

namespace trireme {

/// The middles of 4,096 equal parts of a normal distribution around zero, scaled to a variance of exactly
/// standard_deviation squared.
struct NormalQuantiles {
  static constexpr size_t kCount = 4096;
  explicit NormalQuantiles(float deviation);
  float standard_deviation;
  std::array<float, kCount> values;
};

/// Where drawn elements stand in their tensor. The first one is element (row, col).
struct DrawnPlace {
  uint64_t key = 0;         // of the tensor
  int64_t tensor_cols = 0;  // of the whole tensor
  int64_t row = 0, col = 0;
  const NormalQuantiles* quantiles = nullptr;
};

/// Finalizer of SplitMix64 (doi:10.1145/2714064.2660195).
constexpr uint64_t mix_bits(uint64_t x) {
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

inline constexpr int kDrawnLanes = 4;  // elements per hash, 16 bits each

/// The hash of a tensor's elements [kDrawnLanes * group, kDrawnLanes * (group + 1)), counted row by row; the
/// first one has the lowest bits.
constexpr uint64_t drawn_bits(uint64_t key, uint64_t group) {
  return mix_bits(key + group * 0x9e3779b97f4a7c15u);
}

/// Which quantile an element is.
constexpr unsigned drawn_quantile(uint64_t key, uint64_t element) {
  const uint64_t bits = drawn_bits(key, element / kDrawnLanes) >> (16 * (element % kDrawnLanes));
  return static_cast<unsigned>(bits % NormalQuantiles::kCount);
}

/// Elements [first, first + count) of the tensor, counted row by row.
void draw_values(uint64_t key, uint64_t first, int64_t count, const NormalQuantiles& quantiles, float* out);

}  // namespace trireme
