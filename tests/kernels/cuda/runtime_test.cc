// What is left of a process when a call of the CUDA runtime fails.

#include "kernels/cuda/runtime.h"

#include <gtest/gtest.h>

#include "kernels/check.h"

namespace trireme::cuda {
namespace {

TEST(CudaErrorTest, EndsTheProcessWithOneLineThatNamesTheRank) {
  EXPECT_EXIT(
      {
        process_name() = "rank 3 of 8";
        CUDA_CHECK(cudaErrorInvalidValue);
      },
      ::testing::ExitedWithCode(70),
      "^[^\n]*runtime_test.cc:[0-9]+: CUDA error on [^\n,]+, rank 3 of 8: cudaErrorInvalidValue: "
      "cudaErrorInvalidValue \\(cudaErrorInvalidValue\\)\n$");
}

TEST(CudaErrorTest, AProcessByItselfNamesTheHostAlone) {
  EXPECT_EXIT(CUDA_CHECK(cudaErrorMemoryAllocation), ::testing::ExitedWithCode(70),
              "CUDA error on [^\n,:]+: cudaErrorMemoryAllocation: ");
}

TEST(CudaErrorTest, FailedChecksNameTheRank) {
  EXPECT_DEATH(
      {
        process_name() = "rank 3 of 8";
        CHECK_EQ(1, 2);
      },
      "check failed on rank 3 of 8: 1 == 2 \\(1 vs. 2\\)");
}

}  // namespace
}  // namespace trireme::cuda
