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
};

/// Reads every slice of every parameter in pieces of at most `piece_bytes` with `num_threads` threads (0: 4)
/// and prepares it as `compute_dtype`. Tensors of F32, F16 and BF16 may be mixed. Each parameter is filled
/// exactly once. Checks that names exist, shapes match and dtypes are known before reading anything; lists up
/// to the first 10 faults, each with file, tensor, got and wanted. Tensors of the checkpoint that no rank
/// uses are named in `unused`.
absl::Status load_parameters(const Checkpoint& checkpoint, const std::vector<Parameter*>& parameters,
                             DType compute_dtype, Backend& backend, int num_threads, LoadStats* stats);

/// Draws the parameters instead: normal with the given standard deviation for matrices, ones for vectors; the
/// same values for the same seed and tensor name at every tensor-parallel size.
absl::Status fill_dummy_parameters(const std::vector<Parameter*>& parameters, DType compute_dtype,
                                   Backend& backend, float standard_deviation, uint64_t seed, int num_threads,
                                   LoadStats* stats);

/// dtype that `requested` ("auto", "f32", "bf16") means for this checkpoint on this backend: auto keeps F32
/// as f32 and BF16 as bf16, takes F16 as bf16, and f32 where the backend cannot multiply bf16. `note` gets
/// one sentence when the choice is not the checkpoint's own dtype. INVALID_ARGUMENT for any other text.
absl::StatusOr<DType> choose_compute_dtype(const std::string& requested, DType checkpoint_dtype,
                                           const Backend& backend, std::string* note);
/// The dtype most bytes of the checkpoint have.
DType dominant_dtype(const Checkpoint& checkpoint);

}  // namespace trireme
