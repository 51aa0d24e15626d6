// Runs alone and under mpirun with any number of ranks.

#include "engine/runner/telemetry_exchange.h"

#include <gtest/gtest.h>

#include <thread>

#include "engine/runner/collective_scope.h"
#include "tests/testing/mpi_main.h"

namespace trireme {
namespace {

using std::chrono::milliseconds;
using testing::world;
constexpr milliseconds kDeadline{20'000};
constexpr milliseconds kSlowness{20};

class TelemetryExchangeTest : public ::testing::Test {
 protected:
  TelemetryExchangeTest() { phases_.keep_collectives(64); }

  /// A step's computing, in which `slow_rank` takes its time, and a sum.
  void step(int slow_rank) {
    const PhaseScope compute(phases_, Phase::compute);
    if (world().rank() == slow_rank) std::this_thread::sleep_for(kSlowness);
    const CollectiveScope collective(phases_, progress_, CollectiveKind::all_reduce);
    group_->all_reduce_sum(Tensor(values_.data(), DType::f32, 1, static_cast<int64_t>(values_.size())));
  }
  std::vector<RankTelemetry> report() {
    RankTelemetry own;
    own.times = phases_.snapshot();
    own.num_compiled_kernels = world().rank();
    own.num_collectives = progress_.collectives.load();
    auto ranks = exchange_.report(own);
    EXPECT_TRUE(ranks.ok()) << ranks.status();
    return ranks.ok() ? *std::move(ranks) : std::vector<RankTelemetry>();
  }

  StepPhases phases_;
  StepProgress progress_;
  std::unique_ptr<ProcessGroup> group_ = world().size() > 1 ? create_mpi_process_group(world())
                                                            : create_single_process_group();
  std::vector<float> values_ = std::vector<float>(1000, 1.0f);
  TelemetryExchange exchange_{world(), phases_, kDeadline};
};

TEST_F(TelemetryExchangeTest, ASlowRankIsTheOthersWaitingAndNotTheirTransfer) {
  constexpr int kSteps = 10;
  const int slow = world().size() - 1;
  step(-1);  // the first one connects
  const std::vector<RankTelemetry> before = report();
  for (int i = 0; i < kSteps; ++i) step(slow);
  const std::vector<RankTelemetry> after = report();
  if (world().rank() != 0) {
    EXPECT_TRUE(after.empty());
    return;
  }
  ASSERT_EQ(static_cast<int>(after.size()), world().size());
  const int64_t slept = kSteps * std::chrono::nanoseconds(kSlowness).count();
  const auto waited = [&](int rank) {
    return after[rank].collective_wait_ns - before[rank].collective_wait_ns;
  };
  for (int rank = 0; rank < world().size(); ++rank) {
    const RankTelemetry& now = after[rank];
    EXPECT_EQ(now.num_compiled_kernels, rank);
    EXPECT_EQ(now.num_collectives, kSteps + 1u);
    EXPECT_EQ(now.num_compared_collectives, kSteps + 1u);
    EXPECT_EQ(now.clock_error_ns, 0);
    EXPECT_GE(now.collective_transfer_ns(), 0);
    if (rank == slow) continue;
    // Whatever else this machine does: what the slow rank slept, the others waited.
    EXPECT_GT(waited(rank), slept / 2) << "rank " << rank;
    EXPECT_LT(now.collective_transfer_ns() - before[rank].collective_transfer_ns(), waited(rank));
    EXPECT_LT(waited(slow), waited(rank));
  }
  const PhaseTimes of_slow = after[slow].times - before[slow].times;
  EXPECT_GE(of_slow.of(Phase::compute), slept);
  EXPECT_LT(waited(slow), slept / 2);
}

TEST_F(TelemetryExchangeTest, WhatARingHasForgottenIsSplitLikeTheRest) {
  phases_.keep_collectives(3);
  for (int i = 0; i < 8; ++i) step(-1);
  const std::vector<RankTelemetry> ranks = report();
  for (const RankTelemetry& rank : ranks) {
    EXPECT_EQ(rank.num_collectives, 8u);
    EXPECT_EQ(rank.num_compared_collectives, 3u);
    EXPECT_GE(rank.collective_wait_ns, 0);
    EXPECT_GE(rank.collective_transfer_ns(), 0);
  }
  const std::vector<RankTelemetry> again = report();
  for (size_t rank = 0; rank < again.size(); ++rank) {
    EXPECT_EQ(again[rank].num_compared_collectives, 3u);
    EXPECT_EQ(again[rank].collective_wait_ns, ranks[rank].collective_wait_ns);
  }
}

TEST_F(TelemetryExchangeTest, WhatNobodyRememberedIsSplitLikeTheLastThatWas) {
  step(-1);
  if (world().size() > 1) step(0);  // the others wait
  const std::vector<RankTelemetry> before = report();
  { const PhaseScope compute(phases_, Phase::compute); }
  phases_.move(Phase::compute, Phase::collective, 1'000'000);
  const std::vector<RankTelemetry> after = report();
  for (size_t rank = 0; rank < after.size(); ++rank) {
    EXPECT_EQ(after[rank].num_compared_collectives, before[rank].num_compared_collectives);
    const auto of_all = static_cast<double>(before[rank].times.of(Phase::collective));
    const double share = static_cast<double>(before[rank].collective_wait_ns) / of_all;
    EXPECT_NEAR(static_cast<double>(after[rank].collective_wait_ns - before[rank].collective_wait_ns),
                1e6 * share, 2);
    EXPECT_GT(share, rank > 0 ? 0 : -1);
  }
}

TEST_F(TelemetryExchangeTest, MomentsOfDevicesAddTheirErrorsToTheClocks) {
  RankTelemetry own;
  own.device_clock_error_ns = 1000 * (world().rank() + 1);
  const auto ranks = exchange_.report(own);
  ASSERT_TRUE(ranks.ok()) << ranks.status();
  for (size_t rank = 0; rank < ranks->size(); ++rank)
    EXPECT_EQ((*ranks)[rank].clock_error_ns, rank == 0 ? 1000 : 1000 * static_cast<int64_t>(rank + 2));
}

}  // namespace
}  // namespace trireme
