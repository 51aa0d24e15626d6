// Random weights without a file: drawn where they are used, and any shard can draw its own.

#include <algorithm>
#include <chrono>

#include "engine/weights/parameter_filler.h"
#include "engine/weights/weight_loader.h"

namespace trireme {
namespace {

uint64_t tensor_key(const std::string& name, uint64_t seed) {
  uint64_t key = mix_bits(seed + 0x9e3779b97f4a7c15u);
  for (const char byte : name) key = mix_bits(key ^ static_cast<uint8_t>(byte));
  return key;
}

}  // namespace

absl::Status fill_dummy_parameters(const std::vector<Parameter*>& parameters, DType compute_dtype,
                                   Backend& backend, float standard_deviation, uint64_t seed, int num_threads,
                                   LoadStats* stats) {
  const auto start = std::chrono::steady_clock::now();
  const NormalQuantiles quantiles(standard_deviation);
  const auto source = [&](const Piece& piece, std::vector<char>& scratch, PieceData* data) {
    if (parameters[piece.parameter]->kind == Parameter::Kind::matrix) {
      data->drawn = {tensor_key(piece.slice->name, seed), piece.slice->tensor_cols, piece.row, piece.col,
                     &quantiles};
      return absl::OkStatus();
    }
    const int64_t count = piece.num_rows * piece.num_cols;
    scratch.resize(std::max(scratch.size(), static_cast<size_t>(count) * sizeof(float)));
    auto* values = reinterpret_cast<float*>(scratch.data());
    std::fill(values, values + count, 1.0f);
    *data = {values, piece.num_cols, DType::f32};
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
