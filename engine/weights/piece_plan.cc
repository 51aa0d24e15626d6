#include <algorithm>
#include <set>

#include "engine/weights/parameter_filler.h"
#include "kernels/check.h"

namespace trireme {
namespace {

void check_slice(const Parameter& parameter, const TensorSlice& slice) {
  const auto inside = [](int64_t begin, int64_t count, int64_t size) {
    CHECK_GE(begin, 0);
    CHECK_GE(count, 0);
    CHECK_LE(begin + count, size);
  };
  inside(slice.row, slice.num_rows, slice.tensor_rows);
  inside(slice.col, slice.num_cols, slice.tensor_cols);
  inside(slice.to_row, slice.num_rows, parameter.rows);
  inside(slice.to_col, slice.num_cols, parameter.cols);
}

bool overlap(const TensorSlice& a, const TensorSlice& b) {
  return a.to_row < b.to_row + b.num_rows && b.to_row < a.to_row + a.num_rows &&
         a.to_col < b.to_col + b.num_cols && b.to_col < a.to_col + a.num_cols;
}

void check_parameter(const Parameter& parameter) {
  TRIREME_CHECK(parameter.weight == nullptr && parameter.memory.data() == nullptr);
  if (parameter.kind == Parameter::Kind::vector) CHECK_EQ(parameter.cols, 1);
  for (size_t i = 0; i < parameter.slices.size(); ++i) {
    if (parameter.kind == Parameter::Kind::vector) CHECK_EQ(parameter.slices[i].tensor_cols, 1);
    check_slice(parameter, parameter.slices[i]);
    for (size_t j = 0; j < i; ++j) TRIREME_CHECK(!overlap(parameter.slices[i], parameter.slices[j]));
  }
}

void cut(const TensorSlice& slice, size_t parameter, int64_t piece_elements, std::vector<Piece>& pieces) {
  if (slice.num_rows == 0 || slice.num_cols == 0) return;
  const int64_t num_cols = std::min(slice.num_cols, piece_elements);
  const int64_t row_cost = reads_across_rows(slice) ? slice.tensor_cols : num_cols;
  const int64_t num_rows = std::max<int64_t>(1, piece_elements / row_cost);
  for (int64_t row = 0; row < slice.num_rows; row += num_rows) {
    for (int64_t col = 0; col < slice.num_cols; col += num_cols) {
      pieces.push_back({parameter, &slice, slice.row + row, std::min(num_rows, slice.num_rows - row),
                        slice.col + col, std::min(num_cols, slice.num_cols - col)});
    }
  }
}

}  // namespace

bool reads_across_rows(const TensorSlice& slice) {
  return slice.num_cols == slice.tensor_cols ||
         (slice.num_cols < kMinRunElements && slice.tensor_cols <= kMaxShortRowElements);
}

std::vector<Piece> plan_pieces(const std::vector<Parameter*>& parameters, int64_t piece_elements) {
  CHECK_GE(piece_elements, 1);
  std::vector<Piece> pieces;
  std::set<const Parameter*> seen;
  for (size_t i = 0; i < parameters.size(); ++i) {
    TRIREME_CHECK(seen.insert(parameters[i]).second);
    check_parameter(*parameters[i]);
    for (const TensorSlice& slice : parameters[i]->slices) cut(slice, i, piece_elements, pieces);
  }
  return pieces;
}

}  // namespace trireme
