#include "coordinator/router.h"

#include <algorithm>
#include <deque>
#include <random>

#include <gtest/gtest.h>

namespace trireme {
namespace {

TEST(RouterTest, NobodyIsChosenFromNone) {
  EXPECT_EQ(choose_replica({}), std::nullopt);
  EXPECT_EQ(Router().choose({}, {1, 2}), std::nullopt);
}

TEST(RouterTest, LeastLoadedIsChosen) {
  EXPECT_EQ(choose_replica({{1, 3, 0, 1}, {2, 1, 0, 2}, {3, 2, 0, 0}}), 1u);
}

TEST(RouterTest, QueueCountsBesideWhatIsOutstanding) {
  EXPECT_EQ(choose_replica({{1, 2, 4, 0}, {2, 5, 0, 0}}), 1u);
  EXPECT_EQ(choose_replica({{1, 2, 2, 0}, {2, 5, 0, 0}}), 0u);
}

TEST(RouterTest, EqualsTakeTurns) {
  EXPECT_EQ(choose_replica({{1, 1, 0, 7}, {2, 1, 0, 5}, {3, 0, 1, 6}}), 1u);
  std::vector<ReplicaView> replicas(3);
  std::vector<int> chosen(3);
  for (uint64_t now = 1; now <= 30; ++now) {
    const size_t i = *choose_replica(replicas);
    replicas[i].last_chosen = now;
    ++chosen[i];
  }
  EXPECT_EQ(chosen, (std::vector<int>{10, 10, 10}));
}

TEST(RouterTest, PromptReturnsToWhereItsBeginningWas) {
  Router router;
  std::vector<ReplicaView> replicas = {{1, 0, 0, 0}, {2, 0, 0, 0}};
  EXPECT_EQ(router.choose(replicas, {10, 11}), 0u);
  replicas[0].last_chosen = 1;  // by turns it would be the other one's
  EXPECT_EQ(router.choose(replicas, {10, 11, 12}), 0u);
  EXPECT_EQ(router.choose(replicas, {20, 11}), 1u);  // a number in the middle means nothing without its start
  replicas[1].last_chosen = 2;
  EXPECT_EQ(router.choose(replicas, {10, 30}), 0u);
  EXPECT_EQ(router.choose(replicas, {}), 0u);  // too short to matter
}

TEST(RouterTest, LoadOutweighsThePrefix) {
  const PromptChunks chunks = {1, 2, 3, 4, 5, 6, 7, 8};
  ASSERT_EQ(allowed_lead(8), 3);
  Router router;
  router.choose({{1, 0, 0, 0}}, chunks);
  EXPECT_EQ(router.choose({{1, 3, 0, 0}, {2, 0, 0, 0}}, chunks), 0u);
  EXPECT_EQ(router.choose({{1, 4, 0, 0}, {2, 0, 0, 0}}, chunks), 1u);
  // Both have seen it now: load alone decides between them.
  EXPECT_EQ(router.choose({{1, 1, 0, 0}, {2, 0, 0, 0}}, chunks), 1u);
}

TEST(RouterTest, QueueOutweighsThePrefix) {
  Router router;
  router.choose({{1, 0, 0, 0}}, {1, 2, 3, 4});
  EXPECT_EQ(router.choose({{1, 0, 1, 0}, {2, 0, 0, 0}}, {1, 2, 3, 4}), 1u);
}

TEST(RouterTest, LeadGrowsWithThePrefixAndIsBounded) {
  EXPECT_EQ(allowed_lead(0), 0);
  EXPECT_EQ(allowed_lead(1), 1);
  EXPECT_EQ(allowed_lead(4), 2);
  EXPECT_EQ(allowed_lead(28), 8);
  EXPECT_EQ(allowed_lead(1024), 8);
}

TEST(RouterTest, DepartedReplicasAreForgotten) {
  Router router;
  router.choose({{1, 0, 0, 0}}, {1, 2, 3});
  router.choose({{2, 0, 0, 0}}, {1, 9});
  EXPECT_EQ(router.history().num_chunks(), 4u);
  router.forget(1);
  EXPECT_EQ(router.history().num_chunks(), 2u);
  EXPECT_EQ(router.history().match({1, 2, 3}, 1), 0u);
  EXPECT_EQ(router.history().match({1, 9}, 2), 2u);
  EXPECT_EQ(router.choose({{3, 0, 0, 0}, {2, 0, 0, 9}}, {1, 9}), 1u);
}

TEST(RoutingHistoryTest, IsBoundedAndKeepsBeginnings) {
  RoutingHistory history(6);
  history.record({1, 2, 3, 4}, 7);
  history.record({5, 6, 7, 8}, 7);
  EXPECT_EQ(history.num_chunks(), 6u);
  EXPECT_EQ(history.match({5, 6, 7, 8}, 7), 4u);
  EXPECT_EQ(history.match({1, 2, 3, 4}, 7), 2u);  // its end went first
  history.record({1, 2}, 7);
  history.record({9, 10}, 7);
  EXPECT_EQ(history.match({1, 2, 3, 4}, 7), 2u);  // used since, so that the other one's end went
  EXPECT_EQ(history.match({5, 6, 7, 8}, 7), 2u);
}

/// Replicas with a prefix cache of their own, requests that each run for some arrivals.
class SimulatedCluster {
 public:
  explicit SimulatedCluster(size_t num_replicas) : caches_(num_replicas, RoutingHistory(512)) {
    for (size_t i = 0; i < num_replicas; ++i) replicas_.push_back({i + 1, 0, 0, 0});
  }

  void arrive(const PromptChunks& chunks, uint64_t running_time) {
    ++now_;
    std::erase_if(running_, [&](const auto& request) {
      if (request.second > now_) return false;
      --replicas_[request.first].outstanding;
      return true;
    });
    const size_t i = *router_.choose(replicas_, chunks);
    replicas_[i].last_chosen = now_;
    ++replicas_[i].outstanding;
    running_.emplace_back(i, now_ + running_time);
    num_chunks_ += chunks.size();
    num_hits_ += caches_[i].match(chunks, 1);
    caches_[i].record(chunks, 1);
    const auto [least, most] =
        std::minmax_element(replicas_.begin(), replicas_.end(),
                            [](const auto& a, const auto& b) { return a.outstanding < b.outstanding; });
    largest_gap_ = std::max(largest_gap_, most->outstanding - least->outstanding);
  }

  double hit_rate() const { return static_cast<double>(num_hits_) / static_cast<double>(num_chunks_); }
  int64_t largest_gap() const { return largest_gap_; }

 private:
  Router router_;
  std::vector<ReplicaView> replicas_;
  std::vector<RoutingHistory> caches_;
  std::deque<std::pair<size_t, uint64_t>> running_;
  uint64_t now_ = 0, num_chunks_ = 0, num_hits_ = 0;
  int64_t largest_gap_ = 0;
};

PromptChunks random_chunks(std::mt19937_64& random, size_t count) {
  PromptChunks chunks(count);
  for (uint64_t& chunk : chunks) chunk = random();
  return chunks;
}

// Eight replicas whose caches hold 512 chunks each, 100 conversations' beginnings of 32: together they have
// room for them, one alone has not.
TEST(RouterSimulationTest, SharedPrefixesConcentrateAndHit) {
  std::mt19937_64 random(1);
  std::vector<PromptChunks> prefixes;
  for (int i = 0; i < 100; ++i) prefixes.push_back(random_chunks(random, 32));
  SimulatedCluster cluster(8);
  for (int i = 0; i < 10'000; ++i) {
    PromptChunks chunks = prefixes[random() % prefixes.size()];
    const PromptChunks end = random_chunks(random, 2);
    chunks.insert(chunks.end(), end.begin(), end.end());
    cluster.arrive(chunks, 16);
  }
  EXPECT_GT(cluster.hit_rate(), 0.85);  // 32 of 34 at most
  EXPECT_LE(cluster.largest_gap(), allowed_lead(34) + 1);
}

TEST(RouterSimulationTest, HotPrefixOverloadsNobody) {
  std::mt19937_64 random(2);
  const PromptChunks hot = random_chunks(random, 64);
  SimulatedCluster cluster(4);
  for (int i = 0; i < 2000; ++i) cluster.arrive(hot, 64);
  EXPECT_LE(cluster.largest_gap(), allowed_lead(64) + 1);
  EXPECT_GT(cluster.hit_rate(), 0.99);
}

TEST(RouterSimulationTest, UnrelatedPromptsBalanceAsWithoutAffinity) {
  std::mt19937_64 random(3);
  SimulatedCluster cluster(4);
  for (int i = 0; i < 2000; ++i) cluster.arrive(random_chunks(random, 16), 64);
  EXPECT_LE(cluster.largest_gap(), 1);
}

}  // namespace
}  // namespace trireme
