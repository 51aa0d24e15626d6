// What a running engine tells of its ranks' time.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "engine/runner/trace_file.h"
#include "tests/engine/models/reference_model.h"
#include "tests/testing/mpi_main.h"
#include "tests/testing/trace_check.h"

namespace trireme::testing {
namespace {

constexpr int kTokens = 24;

/// Rank 0's view after one request; on the others empty.
struct Told {
  std::vector<RankTelemetry> before, after;
  std::vector<RankTimeline> trace;
};

Told run(int trace_steps) {
  const Reference reference = load_reference("llama3_rope");
  EngineConfig config = reference_engine_config(reference);
  config.trace_steps = trace_steps;
  auto engine = value_or_die(Engine::create(config, world()));
  Told told;
  if (world().rank() != 0) {
    while (value_or_die(engine->follow(std::chrono::seconds(60)))) {
    }
    return told;
  }
  std::vector<TokenOutput> outputs;
  told.before = value_or_die(engine->gather_telemetry());
  or_die(engine->submit(greedy_request(1, reference.prompt_ids, kTokens)));
  while (engine->has_work()) CHECK_EQ(value_or_die(engine->step(outputs)), true);
  told.after = value_or_die(engine->gather_telemetry());
  told.trace = value_or_die(engine->gather_trace());
  or_die(engine->broadcast_stop());
  return told;
}

TEST(TelemetryTest, PhasesOfEveryRankAddUpToItsTime) {
  const Told told = run(0);
  for (size_t rank = 0; rank < told.after.size(); ++rank) {
    const PhaseTimes times = told.after[rank].times - told.before[rank].times;
    EXPECT_GT(times.of(Phase::compute), 0);
    for (int i = 0; i < kNumPhases; ++i) EXPECT_GE(times.of(static_cast<Phase>(i)), 0);
    EXPECT_GE(times.unaccounted_ns(), 0);
    const bool several = told.after.size() > 1;
    EXPECT_EQ(times.of(Phase::collective) > 0, several);
    EXPECT_EQ(told.after[rank].num_collectives, told.after[rank].num_compared_collectives);
    EXPECT_GE(told.after[rank].collective_wait_ns, 0);
    EXPECT_LE(told.after[rank].collective_wait_ns, told.after[rank].times.of(Phase::collective));
    EXPECT_EQ(told.after[rank].num_collectives, told.after[0].num_collectives);
  }
  for (const RankTimeline& rank : told.trace) EXPECT_TRUE(rank.records.empty());
}

TEST(TelemetryTest, NoWorkIsLeftUnmarked) {
  // Whoever takes the processor away between two phases makes what is unaccounted longer: the least of some
  // runs.
  std::vector<double> least(static_cast<size_t>(world().size()), 1);
  for (int again = 0; again < 5; ++again) {
    const Told told = run(0);
    for (size_t rank = 0; rank < told.after.size(); ++rank) {
      const PhaseTimes times = told.after[rank].times - told.before[rank].times;
      const double fraction =
          static_cast<double>(times.unaccounted_ns()) / static_cast<double>(times.wall_ns);
      least[rank] = std::min(least[rank], fraction);
    }
  }
  if (world().rank() != 0) return;
  for (const double fraction : least) EXPECT_LT(fraction, 0.1);
}

TEST(TelemetryTest, TheTraceHoldsEveryStepOfEveryRank) {
  const Told told = run(100);
  if (world().rank() != 0) return;
  const TraceSummary summary = check_trace(chrome_trace({0, "r0"}, told.trace));
  EXPECT_THAT(summary.error, ::testing::IsEmpty());
  ASSERT_EQ(static_cast<int>(summary.events.size()), world().size());
  for (int rank = 0; rank < world().size(); ++rank) {
    auto events = summary.events.at({0, rank});
    EXPECT_GE(events["step"], kTokens);
    EXPECT_EQ(events["phase upload"], events["step"]);
    EXPECT_EQ(events["phase schedule"] > 0, rank == 0);
    EXPECT_EQ(events["wait waiting"], events["collective"]);
    EXPECT_EQ(events["wait transfer"], events["collective"]);
    EXPECT_EQ(events["collective"], static_cast<int>(told.after[static_cast<size_t>(rank)].num_collectives));
  }
}

TEST(TelemetryTest, TheTraceIsBounded) {
  const Told told = run(2);
  for (const RankTimeline& rank : told.trace) {
    EXPECT_FALSE(rank.records.empty());
    uint64_t first = rank.records.front().step, last = 0;
    for (const TimelineRecord& record : rank.records) last = std::max(last, record.step);
    EXPECT_GE(last, static_cast<uint64_t>(kTokens));
    EXPECT_LT(last - first, 20u);
    EXPECT_GE(last - first, 1u);
  }
}

}  // namespace
}  // namespace trireme::testing
