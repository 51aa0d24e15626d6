#include "launch/client/rank_placement.h"

#include <gtest/gtest.h>

namespace trireme::client {
namespace {

TEST(RankPlacementTest, AsManyCoresAsRanksSuffice) {
  const Placement placement = judge_placement({{"a", {0, 1}}, {"a", {0, 1}}, {"b", {0}}});
  EXPECT_EQ(placement.num_hosts, 2);
  EXPECT_EQ(placement.num_cores, 3);
  EXPECT_FALSE(placement.oversubscribed);
}

TEST(RankPlacementTest, MoreRanksThanCoresAreMarked) {
  EXPECT_TRUE(judge_placement({{"a", {0, 1}}, {"a", {0, 1}}, {"a", {0, 1}}}).oversubscribed);
  EXPECT_TRUE(judge_placement({{"a", {0}}, {"b", {0}}, {"b", {0}}}).oversubscribed);
}

TEST(RankPlacementTest, RanksBoundToOneCoreAreMarkedThoughOthersAreFree) {
  EXPECT_TRUE(judge_placement({{"a", {3}}, {"a", {3}}, {"a", {0, 1, 2}}}).oversubscribed);
  EXPECT_FALSE(judge_placement({{"a", {3}}, {"a", {2}}, {"a", {0}}}).oversubscribed);
}

TEST(RankPlacementTest, SetsThatMeetOverAThirdAreOneCrowd) {
  // Four ranks on the three cores that the last set ties together.
  EXPECT_TRUE(judge_placement({{"a", {0}}, {"a", {1}}, {"a", {2}}, {"a", {0, 1, 2}}}).oversubscribed);
}

TEST(RankPlacementTest, ThisThreadHasAHostAndACore) {
  const auto place = this_place();
  ASSERT_TRUE(place.ok()) << place.status();
  EXPECT_FALSE(place->host.empty());
  EXPECT_FALSE(place->cores.empty());
}

TEST(RankPlacementTest, AWorldOfOneIsNeverOversubscribed) {
  const auto world = create_single_host_group();
  const auto placement = gather_placement(*world, std::chrono::seconds(20));
  ASSERT_TRUE(placement.ok()) << placement.status();
  EXPECT_EQ(placement->num_hosts, 1);
  EXPECT_FALSE(placement->oversubscribed);
}

}  // namespace
}  // namespace trireme::client
