#include "engine/device_placement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

namespace trireme {
namespace {

using ::testing::HasSubstr;

std::string refusal(int first, int local_ranks, int num_devices) {
  const auto placed = place_on_device(first, 0, local_ranks, num_devices, /*may_share=*/false);
  EXPECT_EQ(placed.status().code(), absl::StatusCode::kFailedPrecondition);
  return std::string(placed.status().message());
}

TEST(DevicePlacementTest, WithAGpuForEachRankEachHasItsOwn) {
  for (const bool may_share : {false, true}) {
    for (int rank = 0; rank < 4; ++rank) {
      const auto placed = place_on_device(2, rank, 4, 6, may_share);
      ASSERT_TRUE(placed.ok()) << placed.status();
      EXPECT_EQ(placed->device, 2 + rank);
      EXPECT_EQ(placed->num_sharers, 1);
    }
  }
}

TEST(DevicePlacementTest, MoreRanksThanGpusAreDealtOutInTurn) {
  for (int first = 0; first < 3; ++first) {
    for (int devices = first + 1; devices < 7; ++devices) {
      for (int ranks = devices - first + 1; ranks < 18; ++ranks) {
        std::map<int, int> on_device;
        for (int rank = 0; rank < ranks; ++rank)
          ++on_device[place_on_device(first, rank, ranks, devices, true)->device];
        EXPECT_EQ(static_cast<int>(on_device.size()), devices - first);
        EXPECT_EQ(on_device.begin()->first, first);
        EXPECT_EQ(on_device.rbegin()->first, devices - 1);
        EXPECT_LE(on_device[first] - on_device[devices - 1], 1) << "evenly";
        for (int rank = 0; rank < ranks; ++rank) {
          const auto placed = place_on_device(first, rank, ranks, devices, true);
          EXPECT_EQ(placed->num_sharers, on_device[placed->device]) << rank << " of " << ranks;
        }
      }
    }
  }
}

TEST(DevicePlacementTest, RanksThatMayNotShareAreToldTheWayOut) {
  const std::string one = refusal(0, 2, 1);
  EXPECT_THAT(one, HasSubstr("2 ranks on this host and 1 visible GPU:"));
  EXPECT_THAT(one, HasSubstr("--collectives mpi"));
  EXPECT_THAT(refusal(1, 4, 4), HasSubstr("4 ranks on this host and 3 visible GPUs from number 1 on"));
}

TEST(DevicePlacementTest, ANamedGpuIsSharedByTheRanksOfItsHostThatNameIt) {
  const std::vector<int> devices = {6, 0, 6, 6};
  const std::vector<std::string> hosts = {"a", "a", "b", "a"};
  for (const auto& [rank, sharers] : std::map<int, int>{{0, 2}, {1, 1}, {2, 1}, {3, 2}}) {
    const auto placed = place_as_named(devices, hosts, rank);
    ASSERT_TRUE(placed.ok()) << placed.status();
    EXPECT_EQ(placed->device, devices[static_cast<size_t>(rank)]);
    EXPECT_EQ(placed->num_sharers, sharers) << rank;
  }
}

TEST(DevicePlacementTest, NamesAreOneForEachRank) {
  const auto wrong = place_as_named({1, 2, 3}, {"a", "a"}, 0);
  EXPECT_EQ(wrong.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(wrong.status().message()),
              HasSubstr("got 3 GPUs, wanted one, or one for each of the job's 2 ranks"));
}

/// Devices and sharers of all ranks; nothing where the usual rule holds.
std::vector<std::pair<int, int>> by_sight(int first, const std::vector<RankSight>& ranks) {
  std::vector<std::pair<int, int>> placed;
  for (int rank = 0; rank < static_cast<int>(ranks.size()); ++rank) {
    const auto placement = place_by_sight(first, ranks, rank, /*may_share=*/true);
    EXPECT_TRUE(placement.ok()) << placement.status();
    if (placement.ok() && *placement) placed.emplace_back((*placement)->device, (*placement)->num_sharers);
  }
  return placed;
}

TEST(DevicePlacementTest, RanksThatSeeTheSameGpusFollowTheUsualRule) {
  EXPECT_THAT(by_sight(0, {{"a", {"x", "y"}}, {"a", {"x", "y"}}, {"b", {"x"}}}), ::testing::IsEmpty());
  EXPECT_THAT(by_sight(0, {{"a", {}}, {"a", {}}}), ::testing::IsEmpty());
}

TEST(DevicePlacementTest, ARankThatIsShownItsOwnGpuTakesItAlone) {
  using ::testing::ElementsAre;
  using ::testing::Pair;
  EXPECT_THAT(by_sight(0, {{"a", {"x"}}, {"a", {"y"}}, {"a", {"z"}}, {"b", {"x"}}}),
              ElementsAre(Pair(0, 1), Pair(0, 1), Pair(0, 1)))
      << "the fourth sees what all on its host see";
  // Two pairs of ranks, each pair with two of four GPUs.
  EXPECT_THAT(by_sight(0, {{"a", {"w", "x"}}, {"a", {"y", "z"}}, {"a", {"w", "x"}}, {"a", {"y", "z"}}}),
              ElementsAre(Pair(0, 1), Pair(0, 1), Pair(1, 1), Pair(1, 1)));
  // What is seen in another order, or by two, is the same GPU.
  EXPECT_THAT(by_sight(0, {{"a", {"x", "y"}}, {"a", {"y", "x"}}, {"a", {"x"}}}),
              ElementsAre(Pair(0, 2), Pair(0, 1), Pair(0, 2)));
  EXPECT_THAT(by_sight(1, {{"a", {"w", "x"}}, {"a", {"y", "z"}}, {"a", {"y"}}}),
              ElementsAre(Pair(1, 1), Pair(1, 1)))
      << "the third has no second GPU, which opening it will tell";
}

TEST(DevicePlacementTest, RanksThatAreShownTheSameGpuMayHaveToBeToldApart) {
  const std::vector<RankSight> ranks = {{"a", {"x"}}, {"a", {"x"}}, {"a", {"y"}}};
  const auto shared = place_by_sight(0, ranks, 1, /*may_share=*/false);
  ASSERT_EQ(shared.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(shared.status().message()), HasSubstr("GPU x is that of 2 ranks on host a"));
  EXPECT_TRUE(place_by_sight(0, ranks, 2, /*may_share=*/false).ok());
}

}  // namespace
}  // namespace trireme
