// Weights drawn by the device's kernel, on the processor.

#include "kernels/cuda/draw.h"

#include <gtest/gtest.h>

#include "tests/kernels/cuda/device_tensor.h"
#include "tests/simt/grid.h"

namespace trireme::testing {
namespace {

TEST(CudaDrawTest, TheNumbersAreTheHosts) {
  const NormalQuantiles quantiles(0.02f);
  const DeviceTensor table(DType::f32, 1, NormalQuantiles::kCount,
                           std::vector<float>(quantiles.values.begin(), quantiles.values.end()));
  constexpr int64_t kTensorCols = 1003, kTensorRows = int64_t{1} << 41;  // places beyond 32 bits
  for (const simt::Order order : simt::kOrders) {
    simt::set_options({order, 7, 0});
    for (const auto& [row, rows, col, cols] :
         std::vector<std::array<int64_t, 4>>{{0, 3, 0, kTensorCols},
                                             {5, 2, 1, 7},
                                             {kTensorRows - 3, 3, 1000, 3},
                                             {70'000'000, 1030, 501, 2}}) {
      SCOPED_TRACE(row);
      for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
        std::vector<float> wanted(static_cast<size_t>(rows * cols));
        for (int64_t r = 0; r < rows; ++r)
          draw_values(99, static_cast<uint64_t>((row + r) * kTensorCols + col), cols, quantiles,
                      wanted.data() + r * cols);
        const DeviceTensor rounded(dtype, rows, cols, wanted), out(dtype, rows, cols);
        cuda::draw(nullptr, {99, kTensorCols, row, col, &quantiles}, table.tensor().as<const float>(), out);
        EXPECT_EQ(out.values(), rounded.values());
      }
    }
  }
  simt::set_options({});
}

TEST(CudaDrawTest, BlocksTakeTurnsWhereThereAreMoreRows) {
  constexpr int64_t kRows = 1030;
  const NormalQuantiles quantiles(1);
  const DeviceTensor table(DType::f32, 1, NormalQuantiles::kCount,
                           std::vector<float>(quantiles.values.begin(), quantiles.values.end()));
  const DeviceTensor out(DType::f32, kRows, 2);
  cuda::draw(nullptr, {5, 2, 0, 0, &quantiles}, table.tensor().as<const float>(), out);
  std::vector<float> wanted(2 * kRows);
  draw_values(5, 0, 2 * kRows, quantiles, wanted.data());
  EXPECT_EQ(out.values(), wanted);
}

TEST(CudaDrawTest, APieceLeavesWhatStandsBesideIt) {
  const NormalQuantiles quantiles(1);
  const DeviceTensor table(DType::f32, 1, NormalQuantiles::kCount,
                           std::vector<float>(quantiles.values.begin(), quantiles.values.end()));
  const DeviceTensor out(DType::f32, 4, 300, std::vector<float>(1200, 123.0f));
  cuda::draw(nullptr, {1, 300, 1, 10, &quantiles}, table.tensor().as<const float>(),
             out.tensor().slice_rows(1, 2).slice_cols(10, 280));
  const std::vector<float> values = out.values();
  for (size_t i = 0; i < values.size(); ++i) {
    const bool inside = i / 300 >= 1 && i / 300 < 3 && i % 300 >= 10 && i % 300 < 290;
    EXPECT_EQ(values[i] == 123.0f, !inside) << i;
  }
}

}  // namespace
}  // namespace trireme::testing
