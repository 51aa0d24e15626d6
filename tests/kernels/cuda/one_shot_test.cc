// Several "devices" in one process: each rank is a thread of the host with memory of its own.

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "kernels/cuda/one_shot_all_reduce.h"
#include "tests/kernels/cuda/device_tensor.h"
#include "tests/simt/grid.h"

namespace trireme::testing {
namespace {

constexpr size_t kCapacity = 2 * cuda::kOneShotUnit;

/// The memory that ranks show each other.
class OneShotTest : public ::testing::Test {
 protected:
  void SetUp() override { simt::set_options({simt::Order::forward, 1, 1, {}}); }
  void TearDown() override {
    simt::set_options({});
    for (void* memory : memory_) cudaFree(memory);
  }
  void make_ranks(int num_ranks) {
    for (int rank = 0; rank < num_ranks; ++rank) {
      void* memory = nullptr;
      const size_t bytes = cuda::one_shot_memory_bytes(kCapacity);
      ASSERT_EQ(cudaMalloc(&memory, bytes), cudaSuccess);
      std::memset(memory, 0, bytes);
      memory_.push_back(memory);
    }
  }
  cuda::OneShotRanks ranks_of(int rank) const {
    cuda::OneShotRanks ranks;
    std::copy(memory_.begin(), memory_.end(), ranks.memory);
    ranks.num_ranks = static_cast<int>(memory_.size());
    ranks.rank = rank;
    ranks.capacity = kCapacity;
    return ranks;
  }
  /// Sums call[rank] over the ranks for one call after the other, each rank by itself. [call][rank] ->
  /// values.
  std::vector<std::vector<std::vector<float>>> all_reduce(
      DType dtype, const std::vector<std::vector<std::vector<float>>>& calls) {
    // One thread at a time uses the default stream, so all copies are this one's.
    std::vector<std::vector<std::unique_ptr<DeviceTensor>>> tensors(memory_.size());
    for (size_t rank = 0; rank < memory_.size(); ++rank) {
      for (const auto& call : calls)
        tensors[rank].push_back(
            std::make_unique<DeviceTensor>(dtype, 1, static_cast<int64_t>(call[rank].size()), call[rank]));
    }
    std::vector<std::thread> threads;
    for (size_t rank = 0; rank < memory_.size(); ++rank) {
      threads.emplace_back([&, rank] {
        cudaStream_t stream = nullptr;
        ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
        for (const auto& tensor : tensors[rank]) {
          cuda::one_shot_all_reduce(stream, ranks_of(static_cast<int>(rank)), *tensor);
          ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
        }
        cudaStreamDestroy(stream);
      });
    }
    for (std::thread& thread : threads) thread.join();
    auto results = calls;
    for (size_t call = 0; call < calls.size(); ++call) {
      for (size_t rank = 0; rank < memory_.size(); ++rank)
        results[call][rank] = tensors[rank][call]->values();
    }
    return results;
  }
  std::vector<void*> memory_;
};

float rounded(DType dtype, float value) {
  return DeviceTensor(dtype, 1, 1, std::vector<float>{value}).values()[0];
}

/// In the order of MpiGroup: partners at distance 1, 2, 4 add to each other.
float tree_sum(std::vector<float> parts) {
  for (size_t distance = 1; distance < parts.size(); distance *= 2) {
    for (size_t rank = 0; rank < parts.size(); rank += 2 * distance) parts[rank] += parts[rank + distance];
  }
  return parts[0];
}

struct Case {
  int num_ranks;
  DType dtype;
};

class OneShotTypesTest : public OneShotTest, public ::testing::WithParamInterface<Case> {};

TEST_P(OneShotTypesTest, EveryCallGivesTheTreesBitsOnEveryRank) {
  const auto [num_ranks, dtype] = GetParam();
  make_ranks(num_ranks);
  std::mt19937 random(7);
  std::vector<std::vector<std::vector<float>>> calls;
  const auto most = static_cast<int64_t>(kCapacity / dtype_bytes(dtype));
  // One block's worth, sizes that leave blocks without work or with less, all there is room for, small again.
  for (const int64_t count : {int64_t{8}, most, int64_t{264}, int64_t{4096 + 8}, most - 8, int64_t{16}}) {
    std::vector<std::vector<float>> parts;
    for (int rank = 0; rank < num_ranks; ++rank) {
      parts.push_back(random_values(random, count));
      for (float& value : parts.back()) value = rounded(dtype, value);
    }
    calls.push_back(std::move(parts));
  }
  const auto results = all_reduce(dtype, calls);
  for (size_t call = 0; call < calls.size(); ++call) {
    for (size_t i = 0; i < calls[call][0].size(); ++i) {
      std::vector<float> parts;
      for (const auto& part : calls[call]) parts.push_back(part[i]);
      const float wanted = rounded(dtype, tree_sum(parts));
      for (int rank = 0; rank < num_ranks; ++rank)
        ASSERT_EQ(results[call][static_cast<size_t>(rank)][i], wanted)
            << "call " << call << ", rank " << rank << ", element " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, OneShotTypesTest,
                         ::testing::Values(Case{2, DType::f32}, Case{2, DType::bf16}, Case{4, DType::f16},
                                           Case{8, DType::bf16}),
                         [](const auto& one) {
                           return std::to_string(one.param.num_ranks) + "_ranks_" +
                                  std::string(dtype_name(one.param.dtype));
                         });

TEST_F(OneShotTest, ARankThatRunsAheadOverwritesNothingThatIsStillRead) {
  make_ranks(2);
  std::vector<std::vector<std::vector<float>>> calls;
  for (int call = 0; call < 50; ++call) {
    const auto value = static_cast<float>(call);
    calls.push_back({std::vector<float>(64, value), std::vector<float>(64, 1000 * value)});
  }
  for (const simt::Order order : simt::kOrders) {
    // A host thread for each block: one may be held up while the others go on to their next call.
    simt::set_options({order, 3, 16, {}});
    const auto results = all_reduce(DType::f32, calls);
    for (size_t call = 0; call < calls.size(); ++call) {
      const std::vector<float> wanted(64, 1001 * static_cast<float>(call));
      ASSERT_EQ(results[call][0], wanted) << call;
      ASSERT_EQ(results[call][1], wanted) << call;
    }
  }
}

TEST_F(OneShotTest, NumbersOfCallsMayWrapAround) {
  make_ranks(2);
  for (void* memory : memory_) {
    // As after 2^32 - 2 calls, of this rank and of all.
    std::vector<uint32_t> numbers(16 * (1 + cuda::kOneShotMaxRanks), 0xfffffffe);
    std::memcpy(memory, numbers.data(), numbers.size() * sizeof(uint32_t));
  }
  const std::vector<std::vector<float>> parts{std::vector<float>(8, 1), std::vector<float>(8, 2)};
  for (const auto& result : all_reduce(DType::f32, {parts, parts, parts, parts}))
    EXPECT_EQ(result[1], std::vector<float>(8, 3));
}

TEST_F(OneShotTest, WhatDoesNotFitIsSaid) {
  make_ranks(2);
  const cuda::OneShotRanks ranks = ranks_of(0);
  float* const data = static_cast<float*>(memory_[0]) + 1024;
  const auto fits = [&](const Tensor& tensor) { return cuda::fits_one_shot(ranks, tensor); };
  EXPECT_TRUE(fits(Tensor(data, DType::f32, 1, 8192)));
  EXPECT_FALSE(fits(Tensor(data, DType::f32, 1, 8196)));   // more than the capacity
  EXPECT_FALSE(fits(Tensor(data, DType::f32, 1, 6)));      // no multiple of 16 bytes
  EXPECT_FALSE(fits(Tensor(data + 1, DType::f32, 1, 8)));  // not aligned
  EXPECT_FALSE(fits(Tensor(data, DType::f32, 2, 8, 16)));  // rows that are apart
}

}  // namespace
}  // namespace trireme::testing
