// Attention of the CUDA backend, run on the processor.

#include <gtest/gtest.h>

#include <cmath>
#include <tuple>

#include "kernels/cuda/cuda_backend.h"
#include "tests/kernels/cuda/attention_problem.h"
#include "tests/simt/grid.h"

namespace trireme::testing {
namespace {

class CudaAttentionTest : public ::testing::TestWithParam<DType> {
 protected:
  void SetUp() override { use(simt::Order::forward); }
  void TearDown() override { simt::set_options({}); }
  void use(simt::Order order) { simt::set_options({order, random_(), 0}); }
  AttentionSpec spec(const AttentionShape& shape) const {
    AttentionSpec result;
    result.scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
    return result;
  }
  // Weights and outputs are rounded once each; values are of order one, and weights sum to one.
  double tolerance() const { return rounding(GetParam(), 4) + 2e-6; }
  void expect_right(const AttentionShape& shape, const AttentionSpec& how) {
    const AttentionProblem problem(GetParam(), shape, random_);
    expect_near(problem.run(how), problem.wanted(how), tolerance(), tolerance());
  }

  std::mt19937 random_{std::random_device{}()};
};

/// A chunk in the middle, a whole prompt, single tokens near and far, a few tokens at once.
const std::vector<std::pair<int, int>> kMixed = {{37, 100}, {1, 1}, {1, 150}, {20, 20}, {2, 70}};

TEST_P(CudaAttentionTest, MixedBatchesOfEverySizeOfHead) {
  simt::Order order = simt::Order::forward;
  for (const int head_dim : {8, 40, 64, 80, 96, 128, 256}) {
    SCOPED_TRACE(head_dim);
    use(order);
    order = simt::kOrders[(static_cast<size_t>(order) + 1) % std::size(simt::kOrders)];
    const AttentionShape shape{1, 3, head_dim, 16, kMixed};
    expect_right(shape, spec(shape));
  }
}

TEST_P(CudaAttentionTest, EveryMultipleOfEightUpTo256) {
  for (int head_dim = 8; head_dim <= 256; head_dim += 8) {
    SCOPED_TRACE(head_dim);
    const AttentionShape shape{1, 2, head_dim, 16, {{3, 35}, {1, 1}}};
    expect_right(shape, spec(shape));
  }
}

TEST_P(CudaAttentionTest, ChunksOfAnySizeAmongManyTokens) {
  AttentionShape shape{1, 4, 64, 16, {}};
  for (int i = 0; i < 24; ++i) shape.sequences.push_back({1, 1 + 7 * i % 40});
  // Chunks first and last, one of exactly a block's rows, and one that a block's rows just exceed.
  for (const auto& [place, query_len] : {std::pair{0, 33}, {9, 16}, {10, 17}, {15, 5}, {23, 48}})
    shape.sequences[static_cast<size_t>(place)] = {query_len, query_len + place};
  expect_right(shape, spec(shape));
}

TEST_P(CudaAttentionTest, EveryGroupingOfHeads) {
  for (const auto& [num_kv_heads, group] : {std::pair{3, 1}, {2, 4}, {1, 8}, {1, 17}}) {
    SCOPED_TRACE(group);
    const AttentionShape shape{num_kv_heads, group, 64, 16, {{5, 40}, {1, 90}}};
    expect_right(shape, spec(shape));
  }
}

TEST_P(CudaAttentionTest, EverySizeOfBlock) {
  for (const int block_size : {1, 5, 32, 64}) {
    SCOPED_TRACE(block_size);
    const AttentionShape shape{2, 2, 64, block_size, {{9, 70}, {1, 33}}};
    expect_right(shape, spec(shape));
  }
}

TEST_P(CudaAttentionTest, ASlidingWindow) {
  for (const int window : {0, 1, 31, 70}) {
    SCOPED_TRACE(window);
    const AttentionShape shape{1, 2, 64, 16, {{30, 140}, {1, 200}, {1, 3}}};
    AttentionSpec how = spec(shape);
    how.window_left = window;
    expect_right(shape, how);
  }
}

TEST_P(CudaAttentionTest, SoftCappedScores) {
  const AttentionShape shape{1, 2, 64, 16, {{10, 40}, {1, 50}}};
  AttentionSpec how = spec(shape);
  how.scale *= 4;
  how.logit_softcap = 2;
  expect_right(shape, how);
}

TEST_P(CudaAttentionTest, ARowsBitsDependNeitherOnItsChunkNorOnItsBatch) {
  const AttentionShape shape{1, 4, 64, 16, {{1, 60}, {50, 230}, {3, 30}}};
  const AttentionProblem problem(GetParam(), shape, random_);
  for (const int window : {-1, 90}) {
    AttentionSpec how = spec(shape);
    how.window_left = window;
    const std::vector<float> all = problem.run(how);
    EXPECT_EQ(problem.run(how, /*shared_out=*/false), all);
    const auto row = [&](int token) {
      const auto begin = all.begin() + token * problem.q_cols();
      return std::vector<float>(begin, begin + problem.q_cols());
    };
    for (const int i : {0, 7, 49}) {
      EXPECT_EQ(problem.run(how, true, {1, 1, 180 + i + 1}), row(1 + i)) << i;
      EXPECT_EQ(problem.run(how, false, {1, 1, 180 + i + 1}), row(1 + i)) << i;
    }
    const std::vector<float> chunk = problem.run(how, true, {1, 20, 200});
    for (int i = 0; i < 20; ++i) {
      const auto begin = chunk.begin() + i * problem.q_cols();
      EXPECT_EQ(std::vector<float>(begin, begin + problem.q_cols()), row(1 + i)) << i;
    }
  }
}

TEST_P(CudaAttentionTest, ABlockMayHaveSeveralSegments) {
  // Eleven segments for four blocks, of which the last has two and a bit.
  const AttentionShape shape{1, 4, 64, 16, {{1, 11 * 64 - 5}}};
  AttentionProblem problem(GetParam(), shape, random_);
  for (const int window : {-1, 500}) {
    AttentionSpec how = spec(shape);
    how.window_left = window;
    problem.num_multiprocessors = 1000;
    const std::vector<float> one_each = problem.run(how);
    expect_near(one_each, problem.wanted(how), tolerance(), tolerance());
    problem.num_multiprocessors = 1;
    EXPECT_EQ(problem.run(how), one_each);
    EXPECT_EQ(problem.run(how, /*shared_out=*/false), one_each);
  }
}

/// Of compute capability 8.6, 8.9 and 12.0.
constexpr size_t kLittleSharedBytes = 99 * 1024;

class LittleSharedMemoryTest : public CudaAttentionTest {
 protected:
  void SetUp() override {
    CudaAttentionTest::SetUp();
    simt::set_device_shared_bytes(kLittleSharedBytes);
  }
  void TearDown() override {
    simt::set_device_shared_bytes(usual_);
    CudaAttentionTest::TearDown();
  }
  const size_t usual_ = simt::max_shared_bytes();
};

TEST_P(LittleSharedMemoryTest, HeadsOfEverySizeAreAttendedWith) {
  for (const int head_dim : {64, 128, 256}) {
    SCOPED_TRACE(head_dim);
    const AttentionShape shape{1, 3, head_dim, 16, kMixed};
    expect_right(shape, spec(shape));
  }
}

TEST_P(LittleSharedMemoryTest, ARowsBitsDoNotDependOnItsChunk) {
  const AttentionShape shape{1, 2, 256, 16, {{12, 40}}};
  const AttentionProblem problem(GetParam(), shape, random_);
  const std::vector<float> all = problem.run(spec(shape));
  for (const int i : {0, 5, 11}) {
    const auto begin = all.begin() + i * problem.q_cols();
    EXPECT_EQ(problem.run(spec(shape), true, {0, 1, 28 + i + 1}),
              std::vector<float>(begin, begin + problem.q_cols()))
        << i;
  }
}

TEST_P(LittleSharedMemoryTest, WhoeverIsNotToldFailsAtTheLaunch) {
  if (GetParam() == DType::f32) GTEST_SKIP() << "f32 takes the plain kernel everywhere";
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const AttentionShape shape{1, 3, 256, 16, {{20, 20}}};
  AttentionProblem problem(GetParam(), shape, random_);
  problem.max_shared_bytes = usual_;
  EXPECT_EXIT(problem.run(spec(shape)), ::testing::ExitedWithCode(70),
              "CUDA error .*attention of chunks: cudaErrorInvalidValue");
}

TEST_P(LittleSharedMemoryTest, TheUserIsToldOfTheSlowerKernel) {
  const cuda::CudaBackend narrow({0, "Narrow", 8, 9, 4, kLittleSharedBytes}, GetParam()),
      usual({0, "Usual", 9, 0, 4, usual_}, GetParam());
  const auto note = [](const cuda::CudaBackend& backend, int head_dim) {
    return backend.attention_note({1, 1, head_dim, 16, backend.activation_dtype()});
  };
  for (const int head_dim : {40, 64, 128, 256}) EXPECT_EQ(note(usual, head_dim), "");
  for (const int head_dim : {40, 64, 128, 248}) EXPECT_EQ(note(narrow, head_dim), "");
  if (GetParam() == DType::f32)
    EXPECT_EQ(note(narrow, 256), "") << "nothing faster is there for f32";
  else
    EXPECT_EQ(note(narrow, 256),
              "attention heads of 256: tensor cores take 136192 bytes of shared memory per block, GPU 0 "
              "(Narrow) has 101376: a plain kernel attends, which is slower");
}

INSTANTIATE_TEST_SUITE_P(CudaOnCpu, LittleSharedMemoryTest,
                         ::testing::Values(DType::f32, DType::bf16, DType::f16),
                         [](const auto& tested) { return std::string(dtype_name(tested.param)); });

INSTANTIATE_TEST_SUITE_P(CudaOnCpu, CudaAttentionTest, ::testing::Values(DType::f32, DType::bf16, DType::f16),
                         [](const auto& tested) { return std::string(dtype_name(tested.param)); });

}  // namespace
}  // namespace trireme::testing
