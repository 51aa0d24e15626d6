#pragma once
// Fills parameters from a checkpoint: each rank reads only its own bytes, several threads at once.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/layers/parameter.h"
#include "engine/weights/safetensors.h"
#include "kernels/backend.h"

namespace trireme {

struct LoadStats {
  uint64_t bytes_read = 0;    // from files
  uint64_t weight_bytes = 0;  // on the device, as Weight::bytes() and vectors count them
  double seconds = 0;
  /// Tensors of the checkpoint that no parameter names, sorted; without those known to be harmless (rotary
  /// inverse frequencies, and lm_head.weight, which a model with tied embeddings leaves unread).
  std::vector<std::string> unused;
};

/// Elements read at once by one thread: 4 MiB of bf16.
constexpr int64_t kPieceElements = 1 << 21;

/// Reads every slice of every parameter in pieces with `num_threads` threads (0: 4) and prepares it as
/// `compute_dtype`. Tensors of F32, F16 and BF16 may be mixed. Each parameter is filled exactly once. A slice
/// of columns is read row by row, without what lies between; only short rows are read whole. Checks that
/// names exist, shapes match and dtypes are known before reading anything: FAILED_PRECONDITION with up to the
/// first 10 faults, each with tensor, file, got and wanted. DATA_LOSS where a file falls short.
/// RESOURCE_EXHAUSTED where the backend has no memory. After an error all parameters are empty.
/// `stats` may be null.
absl::Status load_parameters(const Checkpoint& checkpoint, const std::vector<Parameter*>& parameters,
                             DType compute_dtype, Backend& backend, int num_threads, LoadStats* stats,
                             int64_t piece_elements = kPieceElements);

/// Draws the parameters instead: normal with the given standard deviation (4,096 quantiles, so at most 3.7
/// deviations from 0) for matrices, ones for vectors. An element depends on the seed, its tensor's name and
/// its place in the whole tensor alone: shards of any tensor-parallel size agree.
absl::Status fill_dummy_parameters(const std::vector<Parameter*>& parameters, DType compute_dtype,
                                   Backend& backend, float standard_deviation, uint64_t seed, int num_threads,
                                   LoadStats* stats);

/// dtype that `requested` ("auto", "f32", "bf16", "f16") means for this checkpoint on this backend: auto
/// keeps the checkpoint's, takes F16 as bf16 where the backend cannot multiply f16 (the CPU), and either as
/// f32 where it cannot multiply bf16. `note` gets one sentence when the choice is not the checkpoint's own
/// dtype, and is cleared otherwise; it may be null. INVALID_ARGUMENT for any other text; the backend's
/// UNIMPLEMENTED where it cannot do what was asked for.
absl::StatusOr<DType> choose_compute_dtype(const std::string& requested, DType checkpoint_dtype,
                                           const Backend& backend, std::string* note);
/// What it means where any device is as good as another; f32 for a text that it does not know.
DType wanted_compute_dtype(const std::string& requested, DType checkpoint_dtype);
/// The dtype most bytes of the checkpoint have, among those we compute with; f32 where there are none.
DType dominant_dtype(const Checkpoint& checkpoint);

}  // namespace trireme
