#include <map>

#include "absl/strings/str_cat.h"
#include "engine/weights/weight_loader.h"

namespace trireme {
namespace {

absl::StatusOr<DType> choose_for_checkpoint(DType checkpoint_dtype, const Backend& backend,
                                            std::string* reason) {
  if (checkpoint_dtype != DType::f16 && checkpoint_dtype != DType::bf16) return DType::f32;
  if (checkpoint_dtype == DType::f16 && backend.check_compute_dtype(DType::f16).ok()) return DType::f16;
  const absl::Status bf16 = backend.check_compute_dtype(DType::bf16);
  if (bf16.ok()) return DType::bf16;
  *reason = absl::StrCat(" since ", backend.name(), " cannot multiply bf16: ", bf16.message());
  return DType::f32;
}

}  // namespace

absl::StatusOr<DType> choose_compute_dtype(const std::string& requested, DType checkpoint_dtype,
                                           const Backend& backend, std::string* note) {
  std::string reason;
  absl::StatusOr<DType> chosen = absl::InvalidArgumentError(
      absl::StrCat("dtype: got \"", requested, "\", wanted auto, f32, bf16 or f16"));
  if (requested == "auto") chosen = choose_for_checkpoint(checkpoint_dtype, backend, &reason);
  if (requested == "f32" || requested == "bf16" || requested == "f16") chosen = *parse_float_dtype(requested);
  if (!chosen.ok()) return chosen;
  const absl::Status possible = backend.check_compute_dtype(*chosen);
  if (!possible.ok()) return possible;
  if (note == nullptr) return chosen;
  note->clear();
  if (*chosen != checkpoint_dtype) {
    *note = absl::StrCat("weights of ", std::string(dtype_name(checkpoint_dtype)), " are held as ",
                         std::string(dtype_name(*chosen)), reason);
  }
  return chosen;
}

DType wanted_compute_dtype(const std::string& requested, DType checkpoint_dtype) {
  for (const DType half : {DType::bf16, DType::f16}) {
    if (requested == dtype_name(half) || (requested == "auto" && checkpoint_dtype == half)) return half;
  }
  return DType::f32;
}

DType dominant_dtype(const Checkpoint& checkpoint) {
  std::map<DType, uint64_t> bytes;
  for (const auto& [name, entry] : checkpoint.tensors()) {
    if (entry.dtype.has_value() && *entry.dtype != DType::i32) bytes[*entry.dtype] += entry.bytes;
  }
  DType best = DType::f32;
  for (const auto& [dtype, count] : bytes) {
    if (count > bytes[best]) best = dtype;
  }
  return best;
}

}  // namespace trireme
