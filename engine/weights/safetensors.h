#pragma once
// Safetensors checkpoints: one file or sharded with an index. Every number of a header is checked before it
// is used. Format: https://github.com/huggingface/safetensors#format

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/dtype.h"

namespace trireme {

/// Longer headers are refused, as by the format's own library.
constexpr uint64_t kMaxSafetensorsHeaderBytes = 100'000'000;

struct TensorEntry {
  std::string file;  // path, for messages
  int file_index = 0;
  std::string dtype_name;      // as the file writes it: F32, BF16, I64, ...
  std::optional<DType> dtype;  // nullopt: a dtype of the format that we do not compute with
  std::vector<int64_t> shape;
  uint64_t offset = 0;  // from the start of the file
  uint64_t bytes = 0;
};

/// Parses a header (the JSON after the 8 length bytes). `data_bytes` is what the file holds after it.
/// INVALID_ARGUMENT naming tensor, got and wanted: depth, duplicate keys, unknown dtype, shape that overflows
/// or does not match the bytes, offsets outside, overlapping or not covering the data.
absl::StatusOr<std::map<std::string, TensorEntry>> parse_safetensors_header(std::string_view json,
                                                                            uint64_t data_bytes,
                                                                            const std::string& file);

/// Parses model.safetensors.index.json: the file of each tensor. INVALID_ARGUMENT naming `where`; a file must
/// be the plain name of a .safetensors file, so that no index reaches outside its folder.
absl::StatusOr<std::map<std::string, std::string>> parse_safetensors_index(std::string_view json,
                                                                           const std::string& where);

/// An open checkpoint directory. Thread-safe after opening.
class Checkpoint {
 public:
  /// Reads model.safetensors, or else the files that model.safetensors.index.json names, and all headers.
  /// NOT_FOUND, INVALID_ARGUMENT, FAILED_PRECONDITION (no permission) or DATA_LOSS with the file.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> open(const std::string& model_dir);
  ~Checkpoint();

  const std::map<std::string, TensorEntry>& tensors() const { return tensors_; }
  /// NOT_FOUND naming the tensor.
  absl::StatusOr<const TensorEntry*> find(const std::string& name) const;
  /// Reads bytes of a tensor by pread. DATA_LOSS naming file, tensor and offset when the file falls short.
  absl::Status read(const TensorEntry& tensor, const std::string& name, uint64_t offset, void* destination,
                    uint64_t bytes) const;

 private:
  Checkpoint() = default;
  absl::Status add_file(const std::string& path);

  std::map<std::string, TensorEntry> tensors_;
  std::vector<int> file_descriptors_;
};

}  // namespace trireme
