#include "coordinator/router.h"

#include <gtest/gtest.h>

namespace trireme {
namespace {

TEST(RouterTest, NobodyIsChosenFromNone) { EXPECT_EQ(choose_replica({}), std::nullopt); }

TEST(RouterTest, LeastLoadedIsChosen) { EXPECT_EQ(choose_replica({{3, 0, 1}, {1, 0, 2}, {2, 0, 0}}), 1u); }

TEST(RouterTest, QueueCountsBesideWhatIsOutstanding) {
  EXPECT_EQ(choose_replica({{2, 4, 0}, {5, 0, 0}}), 1u);
  EXPECT_EQ(choose_replica({{2, 2, 0}, {5, 0, 0}}), 0u);
}

TEST(RouterTest, EqualsTakeTurns) {
  EXPECT_EQ(choose_replica({{1, 0, 7}, {1, 0, 5}, {0, 1, 6}}), 1u);
  std::vector<ReplicaView> replicas(3);
  std::vector<int> chosen(3);
  for (uint64_t now = 1; now <= 30; ++now) {
    const size_t i = *choose_replica(replicas);
    replicas[i].last_chosen = now;
    ++chosen[i];
  }
  EXPECT_EQ(chosen, (std::vector<int>{10, 10, 10}));
}

}  // namespace
}  // namespace trireme
