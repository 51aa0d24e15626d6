#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "engine/weights/weight_loader.h"
#include "tests/engine/weights/fake_backend.h"

namespace trireme {
namespace {

using ::testing::Each;

/// Rows [row, row + rows) and columns [col, col + cols).
TensorSlice place(int64_t row, int64_t rows, int64_t col, int64_t cols) {
  TensorSlice slice;
  slice.row = row;
  slice.num_rows = rows;
  slice.col = col;
  slice.num_cols = cols;
  return slice;
}

Parameter part(const std::string& name, int64_t rows, int64_t cols, TensorSlice slice) {
  Parameter parameter;
  slice.name = name;
  slice.tensor_rows = rows;
  slice.tensor_cols = cols;
  parameter.rows = slice.num_rows;
  parameter.cols = slice.num_cols;
  parameter.slices = {slice};
  return parameter;
}

std::vector<float> draw(Parameter parameter, uint64_t seed = 7, int num_threads = 2) {
  FakeBackend backend;
  EXPECT_TRUE(
      fill_dummy_parameters({&parameter}, DType::f32, backend, 0.02f, seed, num_threads, nullptr).ok());
  return fake(parameter).values;
}

TEST(DummyWeightsTest, ShardsAgreeWithTheWholeTensor) {
  const std::vector<float> whole = draw(part("w", 70, 45, place(0, 70, 0, 45)));
  for (const auto& [row, rows, col, cols] :
       std::vector<std::array<int64_t, 4>>{{0, 35, 0, 45}, {35, 35, 0, 45}, {0, 70, 9, 9}, {3, 1, 44, 1}}) {
    const std::vector<float> shard = draw(part("w", 70, 45, place(row, rows, col, cols)), 7, 3);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) {
        ASSERT_EQ(shard[static_cast<size_t>(r * cols + c)],
                  whole[static_cast<size_t>((row + r) * 45 + col + c)]);
      }
    }
  }
}

TEST(DummyWeightsTest, ValuesDependOnSeedAndName) {
  const TensorSlice all = place(0, 20, 0, 30);
  EXPECT_EQ(draw(part("a", 20, 30, all)), draw(part("a", 20, 30, all)));
  EXPECT_NE(draw(part("a", 20, 30, all)), draw(part("b", 20, 30, all)));
  EXPECT_NE(draw(part("a", 20, 30, all), 1), draw(part("a", 20, 30, all), 2));
}

TEST(DummyWeightsTest, ValuesAreNormalWithTheWantedDeviation) {
  const std::vector<float> values = draw(part("w", 1000, 1000, place(0, 1000, 0, 1000)));
  double sum = 0, squares = 0, fourths = 0, neighbours = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const double x = values[i] / 0.02;
    sum += x;
    squares += x * x;
    fourths += x * x * x * x;
    neighbours += i > 0 ? x * values[i - 1] / 0.02 : 0;
  }
  const double n = static_cast<double>(values.size());
  EXPECT_NEAR(sum / n, 0, 0.005);
  EXPECT_NEAR(squares / n, 1, 0.01);
  EXPECT_NEAR(fourths / n, 3, 0.05);
  EXPECT_NEAR(neighbours / n, 0, 0.005);
}

TEST(DummyWeightsTest, VectorsAreOnes) {
  Parameter norm = part("norm", 100, 1, place(0, 100, 0, 1));
  norm.kind = Parameter::Kind::vector;
  FakeBackend backend;
  LoadStats stats;
  ASSERT_TRUE(fill_dummy_parameters({&norm}, DType::bf16, backend, 0.02f, 1, 0, &stats).ok());
  EXPECT_THAT(std::vector<float>(norm.vector.as<float>(), norm.vector.as<float>() + 100), Each(1.0f));
  EXPECT_EQ(stats.weight_bytes, 400u);
  EXPECT_EQ(stats.bytes_read, 0u);
}

}  // namespace
}  // namespace trireme
