// Runs alone and under mpirun with any number of ranks.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "engine/parallel/agreement.h"
#include "engine/parallel/process_group.h"
#include "kernels/float_conversion.h"
#include "tests/testing/mpi_main.h"

namespace trireme {
namespace {

using std::chrono::milliseconds;
using testing::world;
constexpr milliseconds kDeadline{20'000};

std::unique_ptr<ProcessGroup> collectives() { return create_mpi_process_group(world()); }

/// What rank `rank` contributes: different on every rank, known to all.
std::vector<float> contribution(int rank, int64_t count) {
  std::mt19937 random(1234 + rank);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

std::vector<float> all_reduced(ProcessGroup& group, int64_t count) {
  std::vector<float> values = contribution(group.rank(), count);
  group.all_reduce_sum(Tensor(values.data(), DType::f32, 1, count));
  return values;
}

TEST(HostGroupTest, BroadcastReachesEveryRankFromEveryRoot) {
  for (int root = 0; root < world().size(); ++root) {
    for (int64_t count : {0, 1, 1000, 100'000}) {
      std::vector<int32_t> words;
      if (world().rank() == root) {
        for (int64_t i = 0; i < count; ++i) words.push_back(static_cast<int32_t>(i * 7 + root));
      }
      ASSERT_TRUE(world().broadcast(words, root, kDeadline).ok());
      ASSERT_EQ(static_cast<int64_t>(words.size()), count);
      for (int64_t i = 0; i < count; ++i) ASSERT_EQ(words[i], i * 7 + root);
    }
  }
}

TEST(HostGroupTest, GatherGivesTheBytesOfEachRankToTheRootOnly) {
  const int root = world().size() - 1;
  const std::string mine(static_cast<size_t>(world().rank()) * 1000, static_cast<char>('a' + world().rank()));
  const auto all = world().gather(mine, root, kDeadline);
  ASSERT_TRUE(all.ok()) << all.status();
  if (world().rank() != root) {
    EXPECT_TRUE(all->empty());
    return;
  }
  ASSERT_EQ(static_cast<int>(all->size()), world().size());
  for (int rank = 0; rank < world().size(); ++rank) {
    EXPECT_EQ((*all)[rank], std::string(static_cast<size_t>(rank) * 1000, static_cast<char>('a' + rank)));
  }
}

TEST(HostGroupTest, LocalRanksNumberTheProcessesOfAHostWhateverTheGroup) {
  // All ranks of this test share one host.
  EXPECT_EQ(world().local_rank(), world().rank());
  const auto part = world().split(world().rank() % 2, -world().rank());
  EXPECT_EQ(part->local_rank(), world().rank());
  EXPECT_EQ(world().local_size(), world().size());
  EXPECT_EQ(part->local_size(), world().size());
  ASSERT_TRUE(world().barrier(kDeadline).ok());
}

TEST(HostGroupTest, FailuresTellTheRank) {
  const std::string rank = std::to_string(world().rank()), size = std::to_string(world().size());
  EXPECT_EQ(process_name(), world().size() == 1 ? "" : "rank " + rank + " of " + size);
}

TEST(HostGroupTest, AWaitThatNobodyAnswersEndsAtItsDeadline) {
  if (world().size() > 1 && world().rank() == 1) {
    std::vector<int32_t> words;
    const absl::Status status = world().broadcast(words, 0, milliseconds(50));
    EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
    EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("rank 1 of"));
  }
  ASSERT_TRUE(world().barrier(kDeadline).ok());
}

TEST(AgreementTest, OneRankThatFailsFailsAllWithItsMessage) {
  EXPECT_TRUE(agree_on_success(world(), absl::OkStatus(), kDeadline).ok());
  const int last = world().size() - 1;
  const absl::Status mine = world().rank() == last ? absl::DataLossError("file too short") : absl::OkStatus();
  const absl::Status all = agree_on_success(world(), mine, kDeadline);
  EXPECT_EQ(all.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(all.message()), ::testing::HasSubstr("file too short"));
  const std::string where = last > 0 ? "rank " + std::to_string(last) : "";
  EXPECT_THAT(std::string(all.message()), ::testing::HasSubstr(where));
}

TEST(AgreementTest, TheSmallestNumberWins) {
  const auto least = agree_on_minimum(world(), int64_t{1} << (40 - world().rank()), kDeadline);
  ASSERT_TRUE(least.ok()) << least.status();
  EXPECT_EQ(*least, int64_t{1} << (40 - (world().size() - 1)));
}

TEST(AgreementTest, EveryRankGetsTheBytesOfAll) {
  // Of any length and content, none included.
  const auto bytes_of = [](int rank) {
    return std::string(static_cast<size_t>(rank) * 37, static_cast<char>(rank));
  };
  const auto all = share_bytes(world(), bytes_of(world().rank()), kDeadline);
  ASSERT_TRUE(all.ok()) << all.status();
  ASSERT_EQ(static_cast<int>(all->size()), world().size());
  for (int rank = 0; rank < world().size(); ++rank)
    EXPECT_EQ((*all)[static_cast<size_t>(rank)], bytes_of(rank));
}

TEST(HostGroupTest, SplitMakesGroupsByColorOrderedByKey) {
  const auto half = world().split(world().rank() % 2, -world().rank());
  EXPECT_EQ(half->size(), (world().size() + (world().rank() % 2 == 0 ? 1 : 0)) / 2);
  std::vector<int32_t> words{world().rank()};
  ASSERT_TRUE(half->broadcast(words, 0, kDeadline).ok());
  // The highest world rank of the color leads, since the keys are negative.
  int highest = world().size() - 1;
  if (highest % 2 != world().rank() % 2) --highest;
  EXPECT_EQ(words[0], highest);
}

TEST(ProcessGroupTest, SumsAreThoseOfDoublesWithinRounding) {
  const auto group = collectives();
  for (int64_t count : {1, 17, 4096, 16 * 1024 + 1, 300'001}) {
    const std::vector<float> sum = all_reduced(*group, count);
    std::vector<double> expected(count);
    for (int rank = 0; rank < group->size(); ++rank) {
      const std::vector<float> part = contribution(rank, count);
      for (int64_t i = 0; i < count; ++i) expected[i] += part[i];
    }
    for (int64_t i = 0; i < count; ++i)
      ASSERT_NEAR(sum[i], expected[i], 1e-5) << "element " << i << " of " << count;
  }
}

TEST(ProcessGroupTest, EveryRankHasTheSameBits) {
  const auto group = collectives();
  for (int64_t count : {33, 100'000}) {
    const std::vector<float> sum = all_reduced(*group, count);
    std::vector<int32_t> of_rank_0(count);
    std::memcpy(of_rank_0.data(), sum.data(), count * sizeof(float));
    ASSERT_TRUE(world().broadcast(of_rank_0, 0, kDeadline).ok());
    EXPECT_EQ(std::memcmp(of_rank_0.data(), sum.data(), count * sizeof(float)), 0);
  }
}

TEST(ProcessGroupTest, BitsDoNotDependOnTheSizeOfTheMessage) {
  const auto group = collectives();
  const std::vector<float> large = all_reduced(*group, 50'000);
  const std::vector<float> small = all_reduced(*group, 5'000);
  EXPECT_EQ(std::memcmp(large.data(), small.data(), small.size() * sizeof(float)), 0);
}

TEST(ProcessGroupTest, HalvesAreSummedInF32AndRoundedOnce) {
  const auto group = collectives();
  for (const DType dtype : {DType::bf16, DType::f16}) {
    for (const int64_t count : {7, 40'000}) {
      const auto rounded = [&](int rank) {
        std::vector<uint16_t> halves(count);
        convert_from_f32(contribution(rank, count).data(), count, dtype, halves.data());
        return halves;
      };
      // What a group of f32 makes of the same numbers.
      std::vector<float> wide(count);
      std::vector<uint16_t> halves = rounded(group->rank()), wanted(count);
      convert_to_f32(halves.data(), dtype, count, wide.data());
      group->all_reduce_sum(Tensor(wide.data(), DType::f32, 1, count));
      convert_from_f32(wide.data(), count, dtype, wanted.data());
      group->all_reduce_sum(Tensor(halves.data(), dtype, 1, count));
      EXPECT_EQ(halves, wanted) << dtype_name(dtype);
    }
  }
}

TEST(ProcessGroupTest, ColumnsOfAllRanksStandSideBySideOnRankZero) {
  const auto group = collectives();
  const int64_t rows = 5, cols = 7;
  std::vector<float> part(rows * cols), whole(rows * (cols * group->size() + 3), -1);
  for (int64_t i = 0; i < rows * cols; ++i) part[i] = static_cast<float>(group->rank() * 1000 + i);
  const Tensor view(whole.data(), DType::f32, rows, cols * group->size(), cols * group->size() + 3);
  group->gather_cols(Tensor(part.data(), DType::f32, rows, cols), view);
  if (group->rank() != 0) return;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t col = 0; col < view.cols; ++col) {
      ASSERT_EQ(whole[row * view.row_stride + col],
                static_cast<float>(col / cols * 1000 + row * cols + col % cols));
    }
    EXPECT_EQ(whole[row * view.row_stride + view.cols], -1);
  }
}

TEST(ProcessGroupTest, BroadcastTakesTheBytesOfRankZero) {
  const auto group = collectives();
  std::vector<int32_t> ids(9, group->rank());
  group->broadcast(Tensor(ids.data(), DType::i32, 1, 9));
  EXPECT_THAT(ids, ::testing::Each(0));
}

}  // namespace
}  // namespace trireme
