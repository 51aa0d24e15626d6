// What tests do to kernels: masks that are left out.

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "kernels/cuda/mask.cuh"
#include "tests/simt/run.h"

namespace trireme::testing {

/// Adds up those even elements of in[0, count) that are not the third.
__global__ void add_some(const int* in, int* out, int count) {
  for (int i = static_cast<int>(threadIdx.x); cuda::mask_tail(i, count, 32); i += 32) {
    if (cuda::mask(i % 2 == 0) && cuda::mask(i != 2)) atomicAdd(out, in[i]);
  }
}

namespace {

TEST(SimtGuardTest, OneMaskAfterTheOtherCanBeLeftOut) {
  std::vector<int> in(64, 1000);
  std::fill_n(in.begin(), 40, 1);
  const auto sum = [&](const simt::Options& options) {
    simt::set_options(options);
    int total = 0;
    run(add_some, config(1, 32), in.data(), &total, 40);
    return total;
  };
  simt::Options options;
  simt::forget_masks();
  EXPECT_EQ(sum(options), 19);
  EXPECT_TRUE(simt::mask_places().empty()) << "nobody watches";
  options.watches_masks = true;
  EXPECT_EQ(sum(options), 19);
  std::vector<int> sums;
  for (const simt::MaskPlace& place : simt::mask_places()) {
    EXPECT_TRUE(place.file.ends_with("faults_test.cc"));
    options.without_mask = place;
    sums.push_back(sum(options));
  }
  // Without its tail each thread takes part in both rounds, and in no more.
  EXPECT_EQ(sums, (std::vector<int>{19 + 12 * 1000, 39, 20}));
  simt::forget_masks();
  EXPECT_TRUE(simt::mask_places().empty());
  EXPECT_EQ(sum({.watches_masks = true}), 19);
  EXPECT_EQ(simt::mask_places().size(), 3u);
  simt::set_options({});
}

}  // namespace
}  // namespace trireme::testing
