#pragma once
// What reading a checkpoint and drawing dummy weights share: slices cut into pieces, pieces handed to
// threads, each parameter begun with its first piece and finished with its last.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/layers/parameter.h"
#include "kernels/backend.h"

namespace trireme {

/// A rectangle of one tensor: rows [row, row + num_rows), columns [col, col + num_cols) of it.
struct Piece {
  size_t parameter = 0;  // index of the list
  const TensorSlice* slice = nullptr;
  int64_t row = 0, num_rows = 0;
  int64_t col = 0, num_cols = 0;
};

/// Where a piece's elements lie in host memory, row-major; or how to draw them, into a matrix.
struct PieceData {
  const void* data = nullptr;
  int64_t stride = 0;  // elements between rows
  DType dtype = DType::f32;
  std::optional<DrawnPlace> drawn = std::nullopt;
};

/// Brings a piece; `scratch` is the calling thread's own and keeps its memory from piece to piece.
using PieceSource =
    std::function<absl::Status(const Piece& piece, std::vector<char>& scratch, PieceData* data)>;

/// Runs of a column slice shorter than this are read together with what lies between them, in rows up to that
/// length: a call of the system for each would cost more than the bytes.
constexpr int64_t kMinRunElements = 256;
constexpr int64_t kMaxShortRowElements = 4096;
bool reads_across_rows(const TensorSlice& slice);

/// Cuts every slice into pieces of at most `piece_elements` elements (at least one), whole rows where they
/// fit, in the order of the parameters. Aborts where a slice leaves its tensor or its parameter, where slices
/// of one parameter overlap, and where a parameter is filled already or stands in the list twice.
std::vector<Piece> plan_pieces(const std::vector<Parameter*>& parameters, int64_t piece_elements);

/// Brings and writes all pieces with `num_threads` threads (0: 4), this one included, and fills the
/// parameters. Only the calling thread uses the backend (its OpenMP threads belong to whoever calls it).
/// Pieces are taken in order and no more than num_threads + 1 parameters are half filled at any time. On the
/// first error the threads stop, and all parameters are left empty.
absl::Status fill_parameters(const std::vector<Parameter*>& parameters, const std::vector<Piece>& pieces,
                             DType compute_dtype, Backend& backend, int num_threads,
                             const PieceSource& source);

/// Bytes of the filled parameters on the device.
uint64_t parameter_bytes(const std::vector<Parameter*>& parameters);

}  // namespace trireme
