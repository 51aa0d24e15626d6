// Norms, additions, SwiGLU, embedding and gathering.

#include "tests/kernels/backend_fixture.h"

namespace trireme::testing {
namespace {

class ElementwiseTest : public BackendTest {};
TRIREME_INSTANTIATE_BACKENDS(ElementwiseTest);

struct Expected {
  std::vector<double> values, tolerance;
};

/// Within one rounding and what elementwise results may differ by.
std::vector<double> elementwise(const std::vector<double>& values, const Tolerance& tolerance) {
  std::vector<double> result;
  for (const double value : values)
    result.push_back((tolerance.element + tolerance.rounding) * std::abs(value) + tolerance.absolute + 1e-35);
  return result;
}

Expected naive_rms_norm(const std::vector<float>& x, const std::vector<float>& weight, double eps,
                        const Tolerance& tolerance) {
  Expected expected;
  const size_t cols = weight.size();
  for (size_t row = 0; row < x.size() / cols; ++row) {
    double squares = 0;
    for (size_t i = 0; i < cols; ++i) squares += static_cast<double>(x[row * cols + i]) * x[row * cols + i];
    const double factor = 1 / std::sqrt(squares / static_cast<double>(cols) + eps);
    for (size_t i = 0; i < cols; ++i) expected.values.push_back(x[row * cols + i] * factor * weight[i]);
  }
  expected.tolerance = elementwise(expected.values, tolerance);
  return expected;
}

TEST_P(ElementwiseTest, RmsNormEqualsNaiveLoops) {
  for (const int64_t cols : {1, 3, 17, 63, 65, 111, 500, 4097}) {
    for (const int64_t rows : {1, 3, 19}) {
      const auto x = activations(rows * cols, 1, 3), w = normal_values(cols, 2);
      const DeviceMatrix in = upload(x, rows, cols, 2), weight = upload_f32(w, 1, cols),
                         out = empty(rows, cols, 5);
      backend().rms_norm(in.tensor(), weight.tensor(), 1e-5f, out.tensor());
      const Expected want = naive_rms_norm(x, w, 1e-5f, tolerance());
      expect_close(out.floats(), want.values, want.tolerance, "cols " + std::to_string(cols));
      backend().rms_norm(in.tensor(), weight.tensor(), 1e-5f, in.tensor());  // out may alias x
      expect_same_bits(in.floats(), out.floats(), "in place");
    }
  }
}

TEST_P(ElementwiseTest, AddRmsNormAddsToTheResidualFirst) {
  for (const int64_t cols : {1, 17, 111, 2048}) {
    const int64_t rows = 7;
    const auto x = activations(rows * cols, 1), r = activations(rows * cols, 2), w = normal_values(cols, 3);
    const DeviceMatrix in = upload(x, rows, cols, 1), residual = upload(r, rows, cols, 3);
    const DeviceMatrix weight = upload_f32(w, 1, cols), out = empty(rows, cols);
    backend().add_rms_norm(in.tensor(), residual.tensor(), weight.tensor(), 1e-6f, out.tensor());
    std::vector<float> sum(x.size());
    for (size_t i = 0; i < x.size(); ++i) sum[i] = round_to(r[i] + x[i], dtype());
    expect_same_bits(residual.floats(), sum, "residual");
    const Expected want = naive_rms_norm(sum, w, 1e-6f, tolerance());
    expect_close(out.floats(), want.values, want.tolerance, "out");
    const DeviceMatrix again = upload(r, rows, cols, 3);
    backend().add_rms_norm(in.tensor(), again.tensor(), weight.tensor(), 1e-6f, in.tensor());
    expect_same_bits(in.floats(), out.floats(), "in place");
  }
}

TEST_P(ElementwiseTest, NormRowsDoNotDependOnTheirNeighbours) {
  const int64_t cols = 515, rows = 40;
  const auto x = activations(rows * cols, 1), w = normal_values(cols, 2);
  const DeviceMatrix weight = upload_f32(w, 1, cols), in = upload(x, rows, cols), out = empty(rows, cols);
  backend().rms_norm(in.tensor(), weight.tensor(), 1e-5f, out.tensor());
  const auto all = out.floats();
  for (const int64_t count : {1, 2, 3, 11}) {
    const DeviceMatrix part = upload(rows_of(x, cols, 9, count), count, cols, 1),
                       part_out = empty(count, cols);
    backend().rms_norm(part.tensor(), weight.tensor(), 1e-5f, part_out.tensor());
    expect_same_bits(part_out.floats(), rows_of(all, cols, 9, count), "rows");
  }
}

TEST_P(ElementwiseTest, NormOfARowWithNanIsNan) {
  std::vector<float> x(3 * 70, 1.0f);
  x[70 + 69] = std::nanf("");
  const DeviceMatrix in = upload(x, 3, 70), weight = upload_f32(std::vector<float>(70, 1.0f), 1, 70),
                     out = empty(3, 70);
  backend().rms_norm(in.tensor(), weight.tensor(), 0, out.tensor());
  const auto got = out.floats();
  for (size_t i = 0; i < 70; ++i) {
    EXPECT_EQ(got[i], 1.0f);
    EXPECT_TRUE(std::isnan(got[70 + i]));
    EXPECT_EQ(got[140 + i], 1.0f);
  }
}

TEST_P(ElementwiseTest, AddAddsInPlace) {
  for (const int64_t cols : {1, 17, 500}) {
    const auto x = activations(9 * cols, 1), y = activations(9 * cols, 2);
    const DeviceMatrix a = upload(x, 9, cols, 1), b = upload(y, 9, cols, 2);
    backend().add(a.tensor(), b.tensor());
    std::vector<float> want(x.size());
    for (size_t i = 0; i < x.size(); ++i) want[i] = round_to(x[i] + y[i], dtype());
    expect_same_bits(a.floats(), want, "sum");
    expect_same_bits(b.floats(), y, "the other");
  }
}

TEST_P(ElementwiseTest, SiluMulEqualsNaiveLoops) {
  for (const int64_t cols : {1, 3, 17, 63, 65, 111, 500}) {
    const int64_t rows = 11;
    auto gate_up = activations(rows * 2 * cols, 1, 4);
    gate_up[0] = -100;
    if (cols > 1) gate_up[1] = 100;
    const DeviceMatrix in = upload(gate_up, rows, 2 * cols, 3), out = empty(rows, cols, 1);
    backend().silu_mul(in.tensor(), out.tensor());
    std::vector<double> want;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) {
        const double gate = gate_up[r * 2 * cols + c], up = gate_up[r * 2 * cols + cols + c];
        want.push_back(gate / (1 + std::exp(-gate)) * up);
      }
    }
    expect_close(out.floats(), want, elementwise(want, tolerance()), "cols " + std::to_string(cols));
    // A row alone gives the same bits, at another alignment too.
    const DeviceMatrix one = upload(rows_of(gate_up, 2 * cols, 4, 1), 1, 2 * cols), one_out = empty(1, cols);
    backend().silu_mul(one.tensor(), one_out.tensor());
    expect_same_bits(one_out.floats(), rows_of(out.floats(), cols, 4, 1), "a row alone");
  }
}

TEST_P(ElementwiseTest, SiluOfNanIsNan) {
  std::vector<float> gate_up(2 * 37, 1.0f);
  gate_up[2] = gate_up[36] = std::nanf("");
  const DeviceMatrix in = upload(gate_up, 1, 74), out = empty(1, 37);
  backend().silu_mul(in.tensor(), out.tensor());
  const auto got = out.floats();
  for (size_t i = 0; i < 37; ++i) EXPECT_EQ(std::isnan(got[i]), i == 2 || i == 36) << i;
}

TEST_P(ElementwiseTest, EmbeddingReadsTheWeightThatMatmulReads) {
  for (const DType dtype : dtypes()) {
    for (const int64_t cols : {1, 17, 64, 111}) {
      const int64_t table_rows = 131, first_row = 1000;
      const auto values = normal_values(table_rows * cols, 1);
      const auto table = weight(values, table_rows, cols, dtype);
      const std::vector<int32_t> ids = {1000, 1130, 1001, 999, 1131, 0, 1064, 1063, 1000, 2147483647, -1};
      const DeviceMatrix device_ids = upload_ints(ids, 1, static_cast<int64_t>(ids.size()));
      const DeviceMatrix out = empty(static_cast<int64_t>(ids.size()), cols, 2);
      backend().embedding(device_ids.tensor(), *table, first_row, out.tensor());
      std::vector<float> want;
      for (const int32_t id : ids) {
        const int64_t row = id - first_row;
        for (int64_t c = 0; c < cols; ++c)
          want.push_back(row >= 0 && row < table_rows ? round_to(values[row * cols + c], dtype) : 0.0f);
      }
      expect_same_bits(out.floats(), want, std::string(dtype_name(dtype)));
    }
  }
}

TEST_P(ElementwiseTest, GatherRowsCopiesRows) {
  const auto x = activations(9 * 33, 1);
  const DeviceMatrix in = upload(x, 9, 33, 4), ids = upload_ints({8, 0, 0, 5}, 1, 4), out = empty(4, 33, 1);
  backend().gather_rows(in.tensor(), ids.tensor(), out.tensor());
  std::vector<float> want;
  for (const int64_t row : {8, 0, 0, 5}) {
    const auto values = rows_of(x, 33, row, 1);
    want.insert(want.end(), values.begin(), values.end());
  }
  expect_same_bits(out.floats(), want, "rows");
}

TEST_P(ElementwiseTest, CopyLeavesTheGapsBetweenRows) {
  const auto values = activations(5 * 7, 3);
  const DeviceMatrix from = upload(values, 5, 7, 3), to = empty(5, 7, 2);
  backend().copy(from.tensor(), to.tensor());
  expect_same_bits(to.floats(), values, "copy");
  const DeviceMatrix part = empty(2, 3, 1);
  backend().copy(from.tensor().slice_rows(3, 2).slice_cols(4, 3), part.tensor());
  for (size_t i = 0; i < 6; ++i) EXPECT_EQ(part.floats()[i], values[(3 + i / 3) * 7 + 4 + i % 3]);
}

TEST_P(ElementwiseTest, TheLastTokenOfASlotStandsInForNegativeIds) {
  const DeviceMatrix last = upload_ints({100, 101, 102, 103}, 1, 4);
  const DeviceMatrix ids = upload_ints({7, -1, 0, -4, -3}, 1, 5);
  backend().resolve_last_tokens(last.tensor(), ids.tensor());
  EXPECT_THAT(ids.ints(), ::testing::ElementsAre(7, 100, 0, 103, 102));
}

TEST_P(ElementwiseTest, TheLastTokenIsKeptBySlotAndNeverNegative) {
  std::vector<int32_t> wanted(700, 5), ids, slots;
  for (int32_t i = 0; i < 600; ++i) {  // more than a block of threads has
    slots.push_back(i % 3 == 0 ? -1 : 699 - i);
    ids.push_back(i % 5 == 0 ? -1 : i);
    if (slots.back() >= 0) wanted[static_cast<size_t>(slots.back())] = std::max(ids.back(), 0);
  }
  const DeviceMatrix last = upload_ints(std::vector<int32_t>(700, 5), 1, 700);
  backend().keep_last_tokens(upload_ints(ids, 1, 600).tensor(), upload_ints(slots, 1, 600).tensor(),
                             last.tensor());
  EXPECT_EQ(last.ints(), wanted);
}

}  // namespace
}  // namespace trireme::testing
