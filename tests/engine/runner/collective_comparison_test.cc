#include "engine/runner/collective_comparison.h"

#include <gtest/gtest.h>

namespace trireme {
namespace {

constexpr auto kSum = CollectiveKind::all_reduce;

TimelineRecord collective(uint32_t number, int64_t begin, int64_t end, CollectiveKind kind = kSum) {
  return {begin, end, 1, number, 0, Phase::collective, kind};
}

RankTimeline rank_with(std::vector<TimelineRecord> records, ClockOffset clock = {}) {
  return {"host", clock, std::move(records), {}};
}

TEST(CollectiveComparisonTest, ASlowRankIsTheOthersWaitingAndNotTheirTransfer) {
  const std::vector<RankTimeline> ranks{rank_with({collective(1, 100, 1010), collective(2, 1100, 1200)}),
                                        rank_with({collective(1, 1000, 1020), collective(2, 1150, 1205)}),
                                        rank_with({collective(1, 300, 1015), collective(2, 1090, 1201)})};
  const auto totals = sum_waiting(ranks);
  ASSERT_EQ(totals.size(), 3u);
  EXPECT_EQ(totals[0].waited_ns, 900 + 50);
  EXPECT_EQ(totals[1].waited_ns, 0);
  EXPECT_EQ(totals[2].waited_ns, 700 + 60);
  EXPECT_EQ(totals[0].spent_ns - totals[0].waited_ns, 10 + 50);
  EXPECT_EQ(totals[1].spent_ns, 20 + 55);
  for (const WaitingTotals& total : totals) EXPECT_EQ(total.num_compared, 2);
}

TEST(CollectiveComparisonTest, ShiftedClocksAreTakenOff) {
  const auto of_clocks = [](ClockOffset one, ClockOffset two) {
    std::vector<RankTimeline> ranks{rank_with({collective(1, 100, 1010)}),
                                    rank_with({collective(1, 1000, 1020)}, one),
                                    rank_with({collective(1, 300, 1015)}, two)};
    for (RankTimeline& rank : ranks) {
      rank.records[0].begin_ns += rank.clock.offset_ns;
      rank.records[0].end_ns += rank.clock.offset_ns;
    }
    return sum_waiting(ranks);
  };
  const auto expected = of_clocks({}, {});
  const auto shifted = of_clocks({-90'000'000'000, 40}, {123'456'789, 30});
  for (size_t rank = 0; rank < 3; ++rank) {
    EXPECT_EQ(shifted[rank].waited_ns, expected[rank].waited_ns) << rank;
    EXPECT_EQ(shifted[rank].spent_ns, expected[rank].spent_ns) << rank;
  }
}

TEST(CollectiveComparisonTest, AClockErrorNeverMakesWaitingLongerThanTheCollective) {
  // As if rank 1 had arrived after rank 0 had left, or long before.
  for (const int64_t begin : {5000, -5000}) {
    const auto totals = sum_waiting(std::vector<RankTimeline>{
        rank_with({collective(1, 100, 200)}), rank_with({collective(1, begin, begin + 100)})});
    for (const WaitingTotals& total : totals) {
      EXPECT_GE(total.waited_ns, 0);
      EXPECT_LE(total.waited_ns, total.spent_ns);
      EXPECT_EQ(total.spent_ns, 100);
    }
  }
}

TEST(CollectiveComparisonTest, OnlyTheRootOfAGatherWaitsForAll) {
  const auto gather = [](int64_t begin, int64_t end) {
    return collective(1, begin, end, CollectiveKind::gather);
  };
  const auto totals = sum_waiting(std::vector<RankTimeline>{
      rank_with({gather(100, 900)}), rank_with({gather(800, 810)}),  // last; its bytes were taken at once
      rank_with({gather(50, 70)}),                                   // gone before rank 0 came
      rank_with({gather(40, 120)})});                                // waited until rank 0 came
  EXPECT_EQ(totals[0].waited_ns, 700);
  EXPECT_EQ(totals[1].waited_ns, 0);
  EXPECT_EQ(totals[2].waited_ns, 0);
  EXPECT_EQ(totals[3].waited_ns, 60);
}

TEST(CollectiveComparisonTest, ABroadcastIsWaitedForUntilItsRootComes) {
  const auto broadcast = [](int64_t begin, int64_t end) {
    return collective(1, begin, end, CollectiveKind::broadcast);
  };
  const auto totals = sum_waiting(std::vector<RankTimeline>{
      rank_with({broadcast(500, 510)}), rank_with({broadcast(100, 520)}), rank_with({broadcast(700, 705)})});
  EXPECT_EQ(totals[0].waited_ns, 0);
  EXPECT_EQ(totals[1].waited_ns, 400);
  EXPECT_EQ(totals[2].waited_ns, 0);
}

TEST(CollectiveComparisonTest, OnlyWhatAllRemember) {
  const TimelineRecord computing{0, 50, 1, 0, -1, Phase::compute, CollectiveKind::none};
  const std::vector<RankTimeline> ranks{
      rank_with({collective(3, 30, 40), computing, collective(4, 40, 50), collective(6, 60, 70)}),
      rank_with({computing, collective(1, 10, 20), collective(4, 45, 50), collective(5, 50, 60),
                 collective(6, 60, 70), computing, collective(7, 70, 80)})};
  std::vector<uint32_t> seen;
  compare_collectives(ranks, [&seen](const ComparedCollective& compared) {
    ASSERT_EQ(compared.parts.size(), 2u);
    EXPECT_EQ(compared.parts[0].record->collective, compared.parts[1].record->collective);
    seen.push_back(compared.parts[0].record->collective);
  });
  EXPECT_EQ(seen, (std::vector<uint32_t>{4, 6}));
  EXPECT_EQ(sum_waiting(std::vector<RankTimeline>{ranks[0], rank_with({})})[0].num_compared, 0);
}

TEST(CollectiveComparisonTest, NumbersMayWrap) {
  const std::vector<RankTimeline> ranks{
      rank_with({collective(UINT32_MAX, 10, 20), collective(1, 20, 30)}),
      rank_with({collective(UINT32_MAX - 1, 5, 6), collective(UINT32_MAX, 10, 20), collective(1, 20, 30)})};
  EXPECT_EQ(sum_waiting(ranks)[0].num_compared, 2);
}

}  // namespace
}  // namespace trireme
