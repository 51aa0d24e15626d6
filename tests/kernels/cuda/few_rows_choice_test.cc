// Who multiplies few rows: our own kernel, or the library where it was faster.

#include "kernels/cuda/few_rows_choice.h"

#include <cuda_runtime.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/few_rows.h"
#include "tests/kernels/cuda/device_tensor.h"

namespace trireme::testing {
namespace {

using cuda::FewRowsChoice;

TEST(FewRowsChoiceTest, TheLibraryTakesWhatItIsClearlyFasterWith) {
  FewRowsChoice choice;
  EXPECT_EQ(choice.text(), "");
  EXPECT_FALSE(choice.library_takes({64, 32, 1, DType::bf16})) << "never measured";
  choice.note({64, 32, 1, DType::bf16}, 1.0f, 2.0f);
  choice.note({64, 32, 4, DType::bf16}, 1.0f, 0.97f);
  choice.note({64, 32, 8, DType::bf16}, 1.0f, 0.5f);
  choice.note({128, 32, 8, DType::bf16}, 1.0f, 1.0f);
  EXPECT_FALSE(choice.library_takes({64, 32, 1, DType::bf16}));
  EXPECT_FALSE(choice.library_takes({64, 32, 4, DType::bf16})) << "by chance";
  for (const int64_t rows : {5, 6, 7, 8}) {
    EXPECT_TRUE(choice.library_takes({64, 32, rows, DType::bf16})) << rows;
    EXPECT_FALSE(choice.library_takes({128, 32, rows, DType::bf16})) << rows;
    EXPECT_FALSE(choice.library_takes({64, 32, rows, DType::f32})) << "logits were not measured";
  }
  EXPECT_EQ(
      choice.text(),
      "products of few rows: cuBLASLt is faster for 0 of 1 with 1 row, 0 of 1 with up to 4, 1 of 2 with "
      "up to 8; the rest is our own kernel's");
}

class MeasuredFewRowsTest : public ::testing::TestWithParam<DType> {};

TEST_P(MeasuredFewRowsTest, WhoeverWasFasterTheProductsAreRight) {
  constexpr int64_t kIn = 64, kOut = 24, kLayers = 3, kOdd = 9;
  std::mt19937 random(std::random_device{}());
  cuda::CudaBackend backend({0, "the processor", 9, 0, 4, simt::max_shared_bytes(), true}, GetParam());
  const auto make_weight = [&](const std::vector<float>& values, int64_t in) {
    auto builder = *backend.prepare_weight(kOut, in, GetParam());
    builder->write(0, kOut, 0, in, values.data(), in, DType::f32);
    return builder->finish();
  };
  std::vector<std::vector<float>> values;
  std::vector<std::unique_ptr<Weight>> weights;
  for (int64_t i = 0; i < kLayers; ++i) {
    values.push_back(DeviceTensor(GetParam(), kOut, kIn, random_values(random, kOut * kIn)).values());
    weights.push_back(make_weight(values.back(), kIn));
  }
  // Rows of 9 elements are none that the library takes.
  weights.push_back(make_weight(std::vector<float>(kOut * kOdd, 1.0f), kOdd));
  ASSERT_TRUE(backend.reserve_workspace(16, 8, kIn, kOut).ok());
  EXPECT_THAT(
      backend.products_note(),
      ::testing::MatchesRegex("products of few rows: cuBLASLt is faster for [01] of 1 with 1 row, [01] "
                              "of 1 with up to 2, [01] of 1 with up to 4, [01] of 1 with up to 8; .*"));
  for (int64_t rows = 1; rows <= cuda::kMaxFewRows; ++rows) {
    const DeviceTensor x(GetParam(), rows, kIn, random_values(random, rows * kIn)),
        bias(DType::f32, 1, kOut, random_values(random, kOut)), out(GetParam(), rows, kOut);
    // They are filled on the default stream, which the backend's does not wait for.
    const std::vector<float> a = x.values(), b = bias.values(), nothing = out.values();
    ASSERT_TRUE(std::isnan(nothing[0]));
    backend.matmul(x, *weights[1], bias, out);
    backend.synchronize();
    std::vector<double> wanted;
    for (int64_t m = 0; m < rows; ++m) {
      for (int64_t n = 0; n < kOut; ++n) {
        double sum = b[static_cast<size_t>(n)];
        for (int64_t k = 0; k < kIn; ++k)
          sum += double{a[static_cast<size_t>(m * kIn + k)]} * values[1][static_cast<size_t>(n * kIn + k)];
        wanted.push_back(sum);
      }
    }
    // The library starts from the bias, rounded to the output's dtype.
    expect_near(out.values(), wanted, rounding(GetParam(), 2) + 1e-6, rounding(GetParam(), 4) + 1e-5);
  }
}

INSTANTIATE_TEST_SUITE_P(CudaOnCpu, MeasuredFewRowsTest,
                         ::testing::Values(DType::f32, DType::bf16, DType::f16),
                         [](const auto& dtype) { return std::string(dtype_name(dtype.param)); });

}  // namespace
}  // namespace trireme::testing
