// That the one-shot sum needs each of its barriers and masks. The other ranks are the test's: they look and
// answer at the very moments at which a missing barrier would show.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "kernels/cuda/one_shot_all_reduce.h"
#include "tests/kernels/cuda/device_tensor.h"
#include "tests/kernels/cuda/proofs.h"
#include "tests/simt/grid.h"

namespace trireme::testing {
namespace {

constexpr int kRanks = 4, kRank = 1;
constexpr size_t kCapacity = cuda::kOneShotUnit;
// The last block has half of what the others have.
constexpr size_t kBlocks = 16, kBlockElements = 40, kCount = 620;
// Of a rank's memory, in floats: the parts of the first call, block by block.
constexpr size_t kFirstPart = (1024 + kCapacity) / sizeof(float),
                 kPartStride = kCapacity / kBlocks / sizeof(float);

std::vector<float> zeros() {
  return std::vector<float>(cuda::one_shot_memory_bytes(kCapacity) / sizeof(float));
}

/// Ranks that write their parts only when they are waited for, which is when all ranks have been told.
class OtherRanks final : public simt::OtherDevices {
 public:
  OtherRanks() : parts_(random_values(random_, kRanks * kCount)), seen_(kRanks * kCount) {
    for (auto& memory : memory_)
      memory = std::make_unique<DeviceTensor>(DType::f32, 1, static_cast<int64_t>(zeros().size()), zeros());
    simt::set_other_devices(this);
  }
  ~OtherRanks() override { simt::set_other_devices(nullptr); }

  cuda::OneShotRanks ranks() const {
    cuda::OneShotRanks ranks;
    for (size_t rank = 0; rank < kRanks; ++rank) ranks.memory[rank] = memory_[rank]->tensor().data;
    ranks.num_ranks = kRanks;
    ranks.rank = kRank;
    ranks.capacity = kCapacity;
    return ranks;
  }
  /// What each rank saw of the part that it was told of.
  const std::vector<float>& seen() const { return seen_; }

  void told(const uint32_t*, uint32_t) override {
    const size_t block = blockIdx.x, rank = static_cast<size_t>(num_told_[block]++);
    if (rank < kRanks)
      std::memcpy(&seen_[rank * kCount + block * kBlockElements], part(kRank), bytes_of(block));
  }
  void awaited(uint32_t* flag, uint32_t value) override {
    const size_t block = blockIdx.x, rank = threadIdx.x;
    if (num_told_[block] < kRanks || rank >= kRanks) return;
    std::memcpy(part(rank), &parts_[rank * kCount + block * kBlockElements], bytes_of(block));
    *flag = value;
  }

 private:
  static size_t bytes_of(size_t block) {
    return std::min(kBlockElements, kCount - block * kBlockElements) * sizeof(float);
  }
  float* part(size_t rank) const {
    return memory_[rank]->tensor().as<float>() + kFirstPart + blockIdx.x * kPartStride;
  }

  std::mt19937 random_{2};
  const std::vector<float> parts_;
  std::vector<float> seen_;
  std::array<int, kBlocks> num_told_{};
  std::array<std::unique_ptr<DeviceTensor>, kRanks> memory_;
};

std::vector<float> run_one_shot() {
  std::mt19937 random(1);
  const DeviceTensor tensor(DType::f32, 1, kCount, random_values(random, kCount));
  OtherRanks others;
  cuda::one_shot_all_reduce(nullptr, others.ranks(), tensor);
  std::vector<float> all = tensor.values();
  all.insert(all.end(), others.seen().begin(), others.seen().end());
  return all;
}

TEST(CudaGuardsTest, OneShotSumsNeedTheirBarriers) {
  expect_every_meeting_needed("one_shot_all_reduce.cu", run_one_shot);
}

TEST(CudaMasksTest, OneShotSums) { expect_every_mask_needed("one_shot_all_reduce.cu", run_one_shot); }

}  // namespace
}  // namespace trireme::testing
