// Random weights without a file. One hash of a counter gives four elements: 1,000,000,000 of them take
// seconds, and any shard can draw its own.

#include <array>
#include <chrono>
#include <cmath>

#include "engine/weights/parameter_filler.h"
#include "engine/weights/weight_loader.h"

namespace trireme {
namespace {

constexpr size_t kQuantiles = 4096;
constexpr int kLanes = 4;  // elements per hash, 16 bits each

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

/// The middles of kQuantiles equal parts of the distribution, scaled to a variance of exactly one.
std::array<float, kQuantiles> make_quantiles(float standard_deviation) {
  std::array<double, kQuantiles / 2> upper = {};
  double squares = 0;
  for (size_t i = 0; i < upper.size(); ++i) {
    upper[i] = inverse_normal(0.5 + (static_cast<double>(i) + 0.5) / kQuantiles);
    squares += upper[i] * upper[i];
  }
  const double scale = standard_deviation / std::sqrt(squares / static_cast<double>(upper.size()));
  std::array<float, kQuantiles> result = {};
  for (size_t i = 0; i < upper.size(); ++i) {
    result[kQuantiles / 2 + i] = static_cast<float>(upper[i] * scale);
    result[kQuantiles / 2 - 1 - i] = -result[kQuantiles / 2 + i];
  }
  return result;
}

/// Finalizer of SplitMix64 (doi:10.1145/2714064.2660195).
uint64_t mix(uint64_t x) {
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

uint64_t tensor_key(const std::string& name, uint64_t seed) {
  uint64_t key = mix(seed + 0x9e3779b97f4a7c15u);
  for (const char byte : name) key = mix(key ^ static_cast<uint8_t>(byte));
  return key;
}

/// Elements [first, first + count) of the tensor, counted row by row.
void draw(uint64_t key, uint64_t first, int64_t count, const std::array<float, kQuantiles>& quantiles,
          float* out) {
  int64_t i = 0;
  while (i < count) {
    const uint64_t element = first + static_cast<uint64_t>(i);
    uint64_t bits = mix(key + (element / kLanes) * 0x9e3779b97f4a7c15u);
    const auto lane = static_cast<int>(element % kLanes);
    bits >>= 16 * lane;
    const int64_t end = std::min<int64_t>(count, i + kLanes - lane);
    for (; i < end; ++i, bits >>= 16) out[i] = quantiles[bits % kQuantiles];
  }
}

}  // namespace

absl::Status fill_dummy_parameters(const std::vector<Parameter*>& parameters, DType compute_dtype,
                                   Backend& backend, float standard_deviation, uint64_t seed, int num_threads,
                                   LoadStats* stats) {
  const auto start = std::chrono::steady_clock::now();
  const std::array<float, kQuantiles> quantiles = make_quantiles(standard_deviation);
  const auto source = [&](const Piece& piece, std::vector<char>& scratch, PieceData* data) {
    const int64_t count = piece.num_rows * piece.num_cols;
    scratch.resize(std::max(scratch.size(), static_cast<size_t>(count) * sizeof(float)));
    auto* values = reinterpret_cast<float*>(scratch.data());
    *data = {values, piece.num_cols, DType::f32};
    if (parameters[piece.parameter]->kind == Parameter::Kind::vector) {
      std::fill(values, values + count, 1.0f);
      return absl::OkStatus();
    }
    const uint64_t key = tensor_key(piece.slice->name, seed);
    for (int64_t row = 0; row < piece.num_rows; ++row) {
      const int64_t first = (piece.row + row) * piece.slice->tensor_cols + piece.col;
      draw(key, static_cast<uint64_t>(first), piece.num_cols, quantiles, values + row * piece.num_cols);
    }
    return absl::OkStatus();
  };
  const absl::Status status = fill_parameters(parameters, plan_pieces(parameters, kPieceElements / 8),
                                              compute_dtype, backend, num_threads, source);
  if (!status.ok() || stats == nullptr) return status;
  *stats = LoadStats{};
  stats->weight_bytes = parameter_bytes(parameters);
  stats->seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return absl::OkStatus();
}

}  // namespace trireme
