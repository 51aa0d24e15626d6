#include <numeric>
#include <string>
#include <thread>

#include "tests/kernels/backend_fixture.h"

namespace trireme::testing {
namespace {

class MatmulTest : public BackendTest {
 protected:
  std::vector<float> product(const std::vector<float>& x, int64_t rows, const Weight& w,
                             const std::vector<float>& bias = {}, int64_t gap = 0) {
    const DeviceMatrix in = upload(x, rows, w.in_features(), gap), out = empty(rows, w.out_features(), gap);
    if (bias.empty()) {
      backend().matmul(in.tensor(), w, Tensor(), out.tensor());
    } else {
      const DeviceMatrix device_bias = upload_f32(bias, 1, w.out_features());
      backend().matmul(in.tensor(), w, device_bias.tensor(), out.tensor());
    }
    return out.floats();
  }

  void expect_product(const std::vector<float>& got, const std::vector<float>& x, const std::vector<float>& w,
                      const std::vector<float>& bias, const Weight& weight, const std::string& what);
};
TRIREME_INSTANTIATE_BACKENDS(MatmulTest);

void MatmulTest::expect_product(const std::vector<float>& got, const std::vector<float>& exact_x,
                                const std::vector<float>& exact_w, const std::vector<float>& bias,
                                const Weight& weight, const std::string& what) {
  const std::vector<float> x = round_all(exact_x, weight.dtype()), w = round_all(exact_w, weight.dtype());
  const int64_t in = weight.in_features(), out = weight.out_features(),
                rows = static_cast<int64_t>(x.size()) / in;
  std::vector<double> want(static_cast<size_t>(rows * out)), tolerances(want.size());
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t o = 0; o < out; ++o) {
      double sum = bias.empty() ? 0 : bias[o], magnitude = std::abs(sum);
      for (int64_t i = 0; i < in; ++i) {
        const double term = static_cast<double>(x[r * in + i]) * w[o * in + i];
        sum += term;
        magnitude += std::abs(term);
      }
      want[r * out + o] = sum;
      tolerances[r * out + o] =
          tolerance().sum * magnitude + tolerance().rounding * std::abs(sum) + tolerance().absolute;
    }
  }
  expect_close(got, want, tolerances, what);
}

TEST_P(MatmulTest, EqualsNaiveLoopsAtOddSizes) {
  for (const DType dtype : dtypes()) {
    for (const int64_t in : {1, 3, 17, 63, 65, 111, 1030}) {
      for (const int64_t out : sizes<int64_t>({1, 3, 17, 63, 64, 65, 111, 500}, {1, 17, 64, 65})) {
        const auto w = normal_values(out * in, 1), bias = normal_values(out, 2);
        const auto packed = weight(w, out, in, dtype);
        for (const int64_t rows : {1, 8, 35}) {
          // Not the weight's own numbers, whose squares all add up to one side.
          const auto x = normal_values(rows * in, 100 + static_cast<uint32_t>(rows));
          const std::string what = std::string(dtype_name(dtype)) + " " + std::to_string(rows) + "x" +
                                   std::to_string(in) + "x" + std::to_string(out);
          expect_product(product(x, rows, *packed, {}, 3), x, w, {}, *packed, what);
          expect_product(product(x, rows, *packed, bias), x, w, bias, *packed, what + " with bias");
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST_P(MatmulTest, RowsDoNotDependOnTheirNumberOrNeighbours) {
  // A GPU's library goes by the number of rows.
  const int64_t all_rows = on_cuda() ? 8 : 64;
  const int64_t gap = on_cuda() ? 8 : 1;  // there sums go by alignment, too
  for (const DType dtype : dtypes()) {
    for (const int64_t in :
         sizes<int64_t>({17, 64, 500, 512, 576, 1000, 1024, 1056, 2048, 2080, 4096, 5632}, {17, 512, 1056})) {
      for (const int64_t out : sizes<int64_t>({17, 64, 111, 320}, {17, 64})) {
        const auto packed = weight(normal_values(out * in, 1), out, in, dtype);
        const auto x = normal_values(all_rows * in, 2), bias = normal_values(out, 3);
        const auto all = product(x, all_rows, *packed, bias);
        for (const int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 13, 18, 19, 24, 32, 33, 40}) {
          if (rows >= all_rows) break;
          const int64_t first = (rows * 7) % (all_rows - rows);
          const auto some = product(rows_of(x, in, first, rows), rows, *packed, bias, gap);
          expect_same_bits(some, rows_of(all, out, first, rows),
                           std::string(dtype_name(dtype)) + " " + std::to_string(rows) + " rows, " +
                               std::to_string(in) + "x" + std::to_string(out));
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST_P(MatmulTest, WithoutBiasRowsDoNotDependOnTheirNumberEither) {
  if (on_cuda()) GTEST_SKIP() << "skipped: a GPU's library goes by the number of rows";
  for (const DType dtype : dtypes()) {
    for (const int64_t in : {512, 2048, 8192}) {
      const int64_t out = 192;
      const auto packed = weight(normal_values(out * in, 1), out, in, dtype);
      const auto x = normal_values(200 * in, 2);
      const auto all = product(x, 200, *packed);
      for (const int64_t rows : {1, 2, 4, 8, 31, 64, 65, 129})
        expect_same_bits(product(rows_of(x, in, 0, rows), rows, *packed), rows_of(all, out, 0, rows),
                         std::to_string(rows) + " rows, in " + std::to_string(in));
    }
  }
}

TEST_P(MatmulTest, LogitsStayF32) {
  const int64_t in = 96, out = 40;
  const auto w = normal_values(out * in, 1), bias = normal_values(out, 2);
  const auto packed = weight(w, out, in, dtype());
  for (const int64_t rows : {1, 8, 21}) {
    const auto x = activations(rows * in, 3);
    const DeviceMatrix device_x = upload(x, rows, in), device_out = empty_f32(rows, out, 1),
                       device_bias = upload_f32(bias, 1, out);
    backend().matmul(device_x.tensor(), *packed, device_bias.tensor(), device_out.tensor());
    const std::vector<float> rounded = round_all(w, dtype());
    std::vector<double> want, tolerances;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t o = 0; o < out; ++o) {
        double sum = bias[o], magnitude = std::abs(sum);
        for (int64_t i = 0; i < in; ++i) {
          const double term = static_cast<double>(x[r * in + i]) * rounded[o * in + i];
          sum += term;
          magnitude += std::abs(term);
        }
        want.push_back(sum);
        tolerances.push_back(tolerance().sum * magnitude);  // and no rounding
      }
    }
    expect_close(device_out.floats(), want, tolerances, std::to_string(rows) + " rows");
  }
}

TEST_P(MatmulTest, PiecesWrittenByManyThreadsMakeTheWholeWeight) {
  const int64_t out = 131, in = 77;
  const auto values = normal_values(out * in, 5);
  for (const DType dtype : dtypes()) {
    auto builder = backend().prepare_weight(out, in, dtype);
    ASSERT_TRUE(builder.ok());
    std::vector<std::thread> writers;
    for (int writer = 0; writer < 4; ++writer) {
      writers.emplace_back([&, writer] {
        for (int64_t row = 0; row < out; row += 3) {
          for (int64_t col = 0; col < in; col += 5) {
            if ((row / 3 + col / 5) % 4 != writer) continue;
            (*builder)->write(row, std::min<int64_t>(3, out - row), col, std::min<int64_t>(5, in - col),
                              &values[static_cast<size_t>(row * in + col)], in, DType::f32);
          }
        }
      });
    }
    for (std::thread& writer : writers) writer.join();
    const auto pieces = (*builder)->finish();
    const auto whole = weight(values, out, in, dtype);
    const auto x = normal_values(5 * in, 6);
    expect_same_bits(product(x, 5, *pieces), product(x, 5, *whole), std::string(dtype_name(dtype)));
  }
}

TEST_P(MatmulTest, ElementsNeverWrittenAreZero) {
  for (const DType dtype : dtypes()) {
    auto builder = backend().prepare_weight(70, 40, dtype);
    ASSERT_TRUE(builder.ok());
    const float one = 1;
    (*builder)->write(69, 1, 39, 1, &one, 1, DType::f32);
    const auto w = (*builder)->finish();
    const auto got = product(std::vector<float>(40, 2.0f), 1, *w);
    for (size_t i = 0; i < 69; ++i) EXPECT_EQ(got[i], 0.0f);
    EXPECT_EQ(got[69], 2.0f);
  }
}

TEST_P(MatmulTest, SourceTypesAreRoundedToNearestEven) {
  // 1 + 2^-8 lies between two bf16 numbers; the even one is 1. 1 + 3 * 2^-8 goes up to 1 + 2^-6.
  const std::vector<float> wide = {1.00390625f, 1.01171875f, -1.00390625f, 0x1p-130f};
  const std::vector<uint16_t> f16 = {0x3c04, 0x3c0c, 0xbc04, 0x0001};  // the same; the last is 2^-24
  const std::vector<uint16_t> bf16 = {0x3f80, 0x3f82, 0xbf80, 0x0080};
  auto read = [&](const void* source, DType source_dtype, DType dtype) {
    auto builder = backend().prepare_weight(4, 1, dtype);
    EXPECT_TRUE(builder.ok());
    (*builder)->write(0, 4, 0, 1, source, 1, source_dtype);
    return product({1.0f}, 1, *(*builder)->finish());
  };
  if (can(DType::f32)) {
    EXPECT_THAT(read(f16.data(), DType::f16, DType::f32),
                ::testing::ElementsAre(1.00390625f, 1.01171875f, -1.00390625f, 0x1p-24f));
    EXPECT_THAT(read(bf16.data(), DType::bf16, DType::f32),
                ::testing::ElementsAre(1.0f, 1.015625f, -1.0f, 0x1p-126f));
  }
  if (can(DType::f16)) {
    // 1 + 2^-11 lies between two f16 numbers, too.
    const std::vector<float> halves = {1.00048828125f, 1.00146484375f, -70000.0f, 0x1p-25f};
    EXPECT_THAT(read(halves.data(), DType::f32, DType::f16),
                ::testing::ElementsAre(1.0f, 1.001953125f, -INFINITY, 0.0f));
    EXPECT_THAT(read(f16.data(), DType::f16, DType::f16),
                ::testing::ElementsAre(1.00390625f, 1.01171875f, -1.00390625f, 0x1p-24f));
    EXPECT_THAT(read(bf16.data(), DType::bf16, DType::f16),
                ::testing::ElementsAre(1.0f, 1.015625f, -1.0f, 0.0f));
  }
  if (!can(DType::bf16)) return;
  const auto from_f32 = read(wide.data(), DType::f32, DType::bf16);
  EXPECT_THAT(rows_of(from_f32, 1, 0, 3), ::testing::ElementsAre(1.0f, 1.015625f, -1.0f));
  EXPECT_THAT(read(f16.data(), DType::f16, DType::bf16),
              ::testing::ElementsAre(1.0f, 1.015625f, -1.0f, 0x1p-24f));
}

TEST_P(MatmulTest, NanAndInfinityComeThrough) {
  for (const DType dtype : dtypes()) {
    for (const int64_t rows : {1, 8, 40}) {
      const auto w = weight(std::vector<float>(64 * 64, 1.0f), 64, 64, dtype);
      std::vector<float> x(static_cast<size_t>(rows * 64), 1.0f);
      x[5] = std::nanf("");
      if (rows > 1) x[64 + 7] = INFINITY;
      const auto got = product(x, rows, *w);
      EXPECT_TRUE(std::isnan(got[3]));
      if (rows > 1) {
        EXPECT_EQ(got[64 + 3], INFINITY);
      }
      if (rows > 2) {
        EXPECT_EQ(got[128 + 3], 64.0f);
      }
    }
  }
}

TEST_P(MatmulTest, WeightsTheDeviceCannotMultiplyAreRefused) {
  EXPECT_EQ(backend().check_compute_dtype(DType::i32).code(), absl::StatusCode::kUnimplemented);
  EXPECT_FALSE(backend().prepare_weight(2, 2, DType::i32).ok());
}

}  // namespace
}  // namespace trireme::testing
