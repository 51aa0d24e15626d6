#include "kernels/drawn_values.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/backend.h"

namespace trireme {
namespace {

/// x with a fraction `p` of the standard normal distribution below it; 0.5 < p < 1.
double inverse_normal(double p) {
  double low = 0, high = 8;
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    const double below = 0.5 * std::erfc(-middle / std::sqrt(2.0));
    (below < p ? low : high) = middle;
  }
  return low;
}

}  // namespace

NormalQuantiles::NormalQuantiles(float deviation) : standard_deviation(deviation) {
  std::array<double, kCount / 2> upper = {};
  double squares = 0;
  for (size_t i = 0; i < upper.size(); ++i) {
    upper[i] = inverse_normal(0.5 + (static_cast<double>(i) + 0.5) / kCount);
    squares += upper[i] * upper[i];
  }
  const double scale = deviation / std::sqrt(squares / static_cast<double>(upper.size()));
  for (size_t i = 0; i < upper.size(); ++i) {
    values[kCount / 2 + i] = static_cast<float>(upper[i] * scale);
    values[kCount / 2 - 1 - i] = -values[kCount / 2 + i];
  }
}

void draw_values(uint64_t key, uint64_t first, int64_t count, const NormalQuantiles& quantiles, float* out) {
  int64_t i = 0;
  while (i < count) {
    const uint64_t element = first + static_cast<uint64_t>(i);
    const auto lane = static_cast<int>(element % kDrawnLanes);
    uint64_t bits = drawn_bits(key, element / kDrawnLanes) >> (16 * lane);
    const int64_t end = std::min<int64_t>(count, i + kDrawnLanes - lane);
    for (; i < end; ++i, bits >>= 16) out[i] = quantiles.values[bits % NormalQuantiles::kCount];
  }
}

void WeightBuilder::draw(int64_t row, int64_t num_rows, int64_t col, int64_t num_cols,
                         const DrawnPlace& place) {
  std::vector<float> values(static_cast<size_t>(num_rows * num_cols));
  for (int64_t r = 0; r < num_rows; ++r) {
    const int64_t first = (place.row + r) * place.tensor_cols + place.col;
    draw_values(place.key, static_cast<uint64_t>(first), num_cols, *place.quantiles,
                values.data() + r * num_cols);
  }
  write(row, num_rows, col, num_cols, values.data(), num_cols, DType::f32);
}

}  // namespace trireme
