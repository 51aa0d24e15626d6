#include "engine/weights/weight_loader.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/weights/parameter_filler.h"

namespace trireme {
namespace {

constexpr size_t kMaxFaults = 10;

std::string shape_text(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

/// What is wrong with the tensor a slice names, or nothing.
std::string find_fault(const Checkpoint& checkpoint, const TensorSlice& slice, Parameter::Kind kind) {
  const auto found = checkpoint.tensors().find(slice.name);
  if (found == checkpoint.tensors().end()) return absl::StrCat(slice.name, ": not in the checkpoint");
  const TensorEntry& entry = found->second;
  std::vector<int64_t> wanted = {slice.tensor_rows};
  if (kind == Parameter::Kind::matrix) wanted.push_back(slice.tensor_cols);
  if (entry.shape != wanted) {
    return absl::StrCat(slice.name, " in ", entry.file, ": got shape ", shape_text(entry.shape), ", wanted ",
                        shape_text(wanted));
  }
  if (!entry.dtype.has_value() || *entry.dtype == DType::i32) {
    return absl::StrCat(slice.name, " in ", entry.file, ": got dtype ", entry.dtype_name,
                        ", wanted F32, F16 or BF16");
  }
  return "";
}

absl::Status check_tensors(const Checkpoint& checkpoint, const std::vector<Parameter*>& parameters) {
  std::vector<std::string> faults;
  std::set<std::string> seen;  // a tensor that several slices name is one fault
  for (const Parameter* parameter : parameters) {
    for (const TensorSlice& slice : parameter->slices) {
      std::string fault = find_fault(checkpoint, slice, parameter->kind);
      if (!fault.empty() && seen.insert(fault).second) faults.push_back(std::move(fault));
    }
  }
  if (faults.empty()) return absl::OkStatus();
  const size_t total = faults.size();
  faults.resize(std::min(total, kMaxFaults));
  return absl::FailedPreconditionError(
      absl::StrCat("the checkpoint does not fit the model: ", total,
                   total == 1 ? " fault: " : " faults: ", absl::StrJoin(faults, "; "),
                   total > kMaxFaults ? absl::StrCat("; and ", total - kMaxFaults, " more") : ""));
}

std::vector<std::string> find_unused(const Checkpoint& checkpoint,
                                     const std::vector<Parameter*>& parameters) {
  std::set<std::string> used;
  for (const Parameter* parameter : parameters) {
    for (const TensorSlice& slice : parameter->slices) used.insert(slice.name);
  }
  std::vector<std::string> unused;
  for (const auto& [name, entry] : checkpoint.tensors()) {
    const bool harmless = name == "lm_head.weight" || absl::EndsWith(name, "rotary_emb.inv_freq");
    if (!harmless && used.count(name) == 0) unused.push_back(name);
  }
  return unused;
}

/// Reads pieces of a checkpoint. Thread-safe.
class Reader {
 public:
  explicit Reader(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  absl::Status read(const Piece& piece, std::vector<char>& scratch, PieceData* data) {
    const TensorEntry& entry = checkpoint_.tensors().at(piece.slice->name);  // check_tensors found it
    const auto element_bytes = static_cast<int64_t>(dtype_bytes(*entry.dtype));
    const int64_t row_elements = piece.slice->tensor_cols;
    const bool across = reads_across_rows(*piece.slice);
    const int64_t stride = across ? row_elements : piece.num_cols;
    const int64_t elements = (piece.num_rows - 1) * stride + piece.num_cols;
    scratch.resize(std::max(scratch.size(), static_cast<size_t>(elements * element_bytes)));
    *data = {scratch.data(), stride, *entry.dtype};

    const int64_t num_runs = across ? 1 : piece.num_rows;
    const int64_t run_bytes = (across ? elements : piece.num_cols) * element_bytes;
    for (int64_t run = 0; run < num_runs; ++run) {
      const int64_t offset = ((piece.row + run) * row_elements + piece.col) * element_bytes;
      const absl::Status status =
          checkpoint_.read(entry, piece.slice->name, static_cast<uint64_t>(offset),
                           scratch.data() + run * run_bytes, static_cast<uint64_t>(run_bytes));
      if (!status.ok()) return status;
    }
    bytes_read_ += static_cast<uint64_t>(num_runs * run_bytes);
    return absl::OkStatus();
  }

  uint64_t bytes_read() const { return bytes_read_; }

 private:
  const Checkpoint& checkpoint_;
  std::atomic<uint64_t> bytes_read_ = 0;
};

}  // namespace

absl::Status load_parameters(const Checkpoint& checkpoint, const std::vector<Parameter*>& parameters,
                             DType compute_dtype, Backend& backend, int num_threads, LoadStats* stats,
                             int64_t piece_elements) {
  const auto start = std::chrono::steady_clock::now();
  absl::Status status = check_tensors(checkpoint, parameters);
  if (!status.ok()) return status;
  Reader reader(checkpoint);
  status = fill_parameters(parameters, plan_pieces(parameters, piece_elements), compute_dtype, backend,
                           num_threads, [&](const Piece& piece, std::vector<char>& scratch, PieceData* data) {
                             return reader.read(piece, scratch, data);
                           });
  if (!status.ok() || stats == nullptr) return status;
  stats->bytes_read = reader.bytes_read();
  stats->weight_bytes = parameter_bytes(parameters);
  stats->unused = find_unused(checkpoint, parameters);
  stats->seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return absl::OkStatus();
}

}  // namespace trireme
