#include "engine/runner/collective_scope.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace trireme {
namespace {

/// Each reading takes 1 ns; between readings time passes only where a test says so.
int64_t time_ns = 0;
int64_t manual_now() { return ++time_ns; }
void pass(int64_t ns) { time_ns += ns; }

class StepPhasesTest : public ::testing::Test {
 protected:
  StepPhasesTest() { time_ns = 1'000'000; }
  StepPhases phases_{&manual_now};
  StepProgress progress_;
};

TEST_F(StepPhasesTest, EveryPhaseIsMeasuredByItsOwnPair) {
  {
    const PhaseScope phase(phases_, Phase::schedule);
    pass(100);
  }
  {
    const PhaseScope phase(phases_, Phase::compute);
    pass(5000);
  }
  const PhaseTimes times = phases_.snapshot();
  EXPECT_EQ(times.of(Phase::schedule), 101);  // with the reading at its end
  EXPECT_EQ(times.of(Phase::compute), 5001);
  // From the first reading to the last: 1 ns to the second phase's, 1 ns to this one.
  EXPECT_EQ(times.wall_ns, 101 + 1 + 5001 + 1);
  EXPECT_EQ(times.unaccounted_ns(), 2);
}

TEST_F(StepPhasesTest, APieceThatNobodyMarkedIsUnaccounted) {
  const auto run = [this](int64_t unmarked_ns) {
    const PhaseTimes before = phases_.snapshot();
    for (int step = 0; step < 10; ++step) {
      {
        const PhaseScope phase(phases_, Phase::compute);
        pass(90'000);
      }
      pass(unmarked_ns);
      const PhaseScope phase(phases_, Phase::sample);
      pass(10'000);
    }
    return phases_.snapshot() - before;
  };
  { const PhaseScope start(phases_, Phase::idle); }
  const PhaseTimes marked = run(0), holed = run(25'000);
  EXPECT_LT(static_cast<double>(marked.unaccounted_ns()) / static_cast<double>(marked.wall_ns), 0.001);
  EXPECT_EQ(holed.unaccounted_ns() - marked.unaccounted_ns(), 10 * 25'000);
  EXPECT_EQ(holed.of(Phase::compute), marked.of(Phase::compute));
  EXPECT_EQ(holed.of(Phase::sample), marked.of(Phase::sample));
}

TEST_F(StepPhasesTest, AnInnerPhaseInterruptsTheOuter) {
  {
    const PhaseScope outer(phases_, Phase::compute);
    pass(1000);
    {
      const CollectiveScope inner(phases_, progress_, CollectiveKind::all_reduce);
      pass(300);
    }
    pass(2000);
  }
  const PhaseTimes times = phases_.snapshot();
  EXPECT_EQ(times.of(Phase::compute), 1001 + 2001);
  EXPECT_EQ(times.of(Phase::collective), 301);
  EXPECT_EQ(phases_.enter(Phase::none), Phase::none);
}

TEST_F(StepPhasesTest, OneReadingEndsAPhaseAndBeginsTheNext) {
  phases_.keep_collectives(4);
  phases_.keep_trace(8);
  {
    const PhaseScope outer(phases_, Phase::compute);
    const int64_t begin = time_ns;
    { const CollectiveScope inner(phases_, progress_, CollectiveKind::all_reduce); }
    { const PhaseScope inner(phases_, Phase::sample); }
    EXPECT_EQ(time_ns, begin + 4);
  }
  EXPECT_EQ(phases_.snapshot().unaccounted_ns(), 1);  // the reading of the snapshot
  const auto records = phases_.trace().after(0);
  ASSERT_EQ(records.size(), 5u);
  for (size_t i = 1; i < records.size(); ++i) EXPECT_EQ(records[i].begin_ns, records[i - 1].end_ns);
}

TEST_F(StepPhasesTest, TheClockStartsWithTheFirstPhase) {
  pass(1'000'000);
  EXPECT_EQ(phases_.snapshot().wall_ns, 0);
  const PhaseScope phase(phases_, Phase::idle);
  pass(500);
  const PhaseTimes times = phases_.snapshot();
  EXPECT_EQ(times.wall_ns, 501);
  EXPECT_EQ(times.of(Phase::idle), 501);  // up to now
}

TEST_F(StepPhasesTest, WhatIsKnownLateIsAddedOrMoved) {
  const int64_t begin = phases_.now();
  pass(700);
  const int64_t end = phases_.now();
  phases_.add({begin, end, 1, 0, -1, Phase::idle, CollectiveKind::none});
  {
    const PhaseScope waiting(phases_, Phase::compute);
    pass(1000);
  }
  const PhaseTimes before = phases_.snapshot();
  phases_.move(Phase::compute, Phase::collective, 400);
  const PhaseTimes after = phases_.snapshot();
  EXPECT_EQ(after.of(Phase::idle), 701);
  EXPECT_EQ(after.of(Phase::compute), 601);
  EXPECT_EQ(after.of(Phase::collective), 400);
  EXPECT_EQ(after.unaccounted_ns(), before.unaccounted_ns() + 1);  // the reading of the snapshot
}

TEST_F(StepPhasesTest, TheLastCollectivesAreRemembered) {
  phases_.keep_collectives(4);
  phases_.set_step(9);
  progress_.layer = 3;
  for (int i = 0; i < 6; ++i) const CollectiveScope scope(phases_, progress_, CollectiveKind::gather);
  const auto records = phases_.collectives().after(0);
  ASSERT_EQ(records.size(), 4u);
  EXPECT_EQ(phases_.collectives().count(), 6u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(records[i].collective, i + 3);
    EXPECT_EQ(records[i].step, 9u);
    EXPECT_EQ(records[i].layer, 3);
    EXPECT_EQ(records[i].kind, CollectiveKind::gather);
    EXPECT_EQ(records[i].end_ns - records[i].begin_ns, 1);
  }
  EXPECT_EQ(phases_.collectives().after(5).size(), 1u);
  EXPECT_THAT(phases_.collectives().after(6), ::testing::IsEmpty());
}

TEST_F(StepPhasesTest, SwitchedOffItReadsNoClockAndRecordsNothing) {
  phases_.keep_collectives(4);
  phases_.keep_trace(4);
  phases_.enable(false);
  const int64_t before = time_ns;
  {
    const PhaseScope outer(phases_, Phase::compute);
    const CollectiveScope inner(phases_, progress_, CollectiveKind::all_reduce);
  }
  EXPECT_EQ(time_ns, before);
  EXPECT_EQ(progress_.collectives, 1u);  // the watchdog's count goes on
  EXPECT_EQ(phases_.collectives().count() + phases_.trace().count(), 0u);
  phases_.enable(true);
  { const PhaseScope phase(phases_, Phase::compute); }
  EXPECT_EQ(phases_.trace().count(), 1u);
}

}  // namespace
}  // namespace trireme
