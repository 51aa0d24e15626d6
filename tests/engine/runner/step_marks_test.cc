#include "engine/runner/step_marks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "engine/runner/collective_scope.h"

namespace trireme {
namespace {

using ::testing::ElementsAre;

/// Each reading takes 1 ns; between readings time passes only where a test says so.
int64_t time_ns = 0;
int64_t manual_now() { return ++time_ns; }

/// A device that comes to its marks when the test says so.
struct FakeDevice {
  std::vector<int> recorded;
  std::vector<int64_t> moments;
  int num_reads = 0;
};

class FakeMarks final : public Marks {
 public:
  explicit FakeMarks(FakeDevice& device) : device_(device) {}
  void record(int index) override { device_.recorded.push_back(index); }
  int64_t read(std::span<int64_t> moments) override {
    ++device_.num_reads;
    CHECK_EQ(moments.size(), device_.moments.size());
    std::copy(device_.moments.begin(), device_.moments.end(), moments.begin());
    return 77;
  }

 private:
  FakeDevice& device_;
};

class StepMarksTest : public ::testing::Test {
 protected:
  StepMarksTest() {
    time_ns = 1'000'000;
    phases_.keep_collectives(64);
  }
  StepMarks marks(size_t steps_in_flight, int most_parts = 8) {
    return StepMarks(std::make_unique<FakeMarks>(device_), most_parts, steps_in_flight, phases_);
  }
  /// What a forward with one sum does: computing, the sum, computing, drawing.
  void forward() {
    progress_.layer = 5;
    { const CollectiveScope sum(phases_, progress_, CollectiveKind::all_reduce); }
    phases_.enter(Phase::sample);
  }
  /// The host waits for `step` for so long.
  void wait(StepMarks& marks, const MarkedStep& step, int64_t ns) {
    const PhaseScope waiting(phases_, Phase::compute);
    time_ns += ns;
    marks.finish(step, ns);
  }
  std::vector<int> chosen(StepMarks& marks, StepKind kind, int num_steps) {
    std::vector<int> steps;
    for (int step = 0; step < num_steps; ++step)
      if (marks.choose(kind)) steps.push_back(step);
    return steps;
  }

  FakeDevice device_;
  StepPhases phases_{&manual_now};
  StepProgress progress_;
};

TEST_F(StepMarksTest, OneReplayedStepIn64IsMarkedAndOneOtherIn8) {
  StepMarks replayed = marks(2), enqueued = marks(2);
  EXPECT_THAT(chosen(replayed, StepKind::replayed, 200), ElementsAre(0, 64, 128, 192));
  EXPECT_THAT(chosen(enqueued, StepKind::enqueued, 30), ElementsAre(0, 8, 16, 24));
}

TEST_F(StepMarksTest, MarksAreFreeWhenNoStepThatHasThemCanBeOnItsWay) {
  StepMarks all = marks(8);
  EXPECT_EQ(all.choose(StepKind::enqueued), true);
  EXPECT_THAT(chosen(all, StepKind::replayed, 100), ElementsAre(7, 71))
      << "seven steps later at the earliest";
}

TEST_F(StepMarksTest, NothingIsMarkedWhereNothingIsRecordedAndTheNextOneIsInstead) {
  StepMarks all = marks(2);
  phases_.enable(false);
  EXPECT_THAT(chosen(all, StepKind::replayed, 10), ElementsAre());
  phases_.enable(true);
  EXPECT_THAT(chosen(all, StepKind::replayed, 70), ElementsAre(0, 64));
}

TEST_F(StepMarksTest, MarksLieAtTheBordersOfPhases) {
  StepMarks all = marks(1);
  MarkedParts parts;
  progress_.collectives = 41;
  const PhaseScope host(phases_, Phase::compute);
  all.begin(&parts, 41);
  forward();
  EXPECT_EQ(all.end(), true);
  EXPECT_THAT(device_.recorded, ElementsAre(0, 1, 2, 3, 4));
  ASSERT_EQ(parts.size(), 4u);
  const Phase wanted[] = {Phase::compute, Phase::collective, Phase::compute, Phase::sample};
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(parts[i].phase, wanted[i]);
  EXPECT_EQ(parts[1].kind, CollectiveKind::all_reduce);
  EXPECT_EQ(parts[1].layer, 5);
  EXPECT_EQ(parts[1].collective, 1u) << "the first of its step";
  EXPECT_EQ(parts[2].collective, 0u);
  EXPECT_EQ(phases_.nanoseconds(Phase::collective), 0) << "enqueued, which took the host no time to speak of";
  EXPECT_EQ(phases_.enter(Phase::compute), Phase::compute) << "the host's own phase goes on";

  device_.recorded.clear();
  all.begin(nullptr, 42);
  forward();
  EXPECT_EQ(all.end(), true);
  EXPECT_THAT(device_.recorded, ElementsAre());
}

TEST_F(StepMarksTest, AStepOfTooManyPartsCannotBeRead) {
  StepMarks all = marks(1, 3);
  MarkedParts parts;
  all.begin(&parts, 0);
  forward();
  EXPECT_EQ(all.end(), false);
  EXPECT_THAT(device_.recorded, ElementsAre(0, 1, 2)) << "and no mark beyond the last";
}

TEST_F(StepMarksTest, WaitingIsSplitAsTheLastMarkedStepOfItsKindWas) {
  StepMarks all = marks(1);
  MarkedParts parts;
  all.begin(&parts, 0);
  forward();
  all.end();
  device_.moments = {5000, 5400, 5700, 5900, 6000};
  const MarkedStep marked{StepKind::replayed, &parts, 10, 3}, plain{StepKind::replayed, nullptr, 11, 4},
      other{StepKind::enqueued, nullptr, 12, 5};
  const PhaseTimes before = phases_.snapshot();
  wait(all, marked, 2000);
  EXPECT_EQ(all.clock_error_ns(), 77);
  EXPECT_EQ(phases_.nanoseconds(Phase::collective), 600);  // 300 of 1000
  EXPECT_EQ(phases_.nanoseconds(Phase::sample), 200);      // 100 of 1000
  wait(all, plain, 10'000);
  EXPECT_EQ(phases_.nanoseconds(Phase::collective), 3600);
  EXPECT_EQ(phases_.nanoseconds(Phase::sample), 1200);
  wait(all, other, 10'000);
  EXPECT_EQ(phases_.nanoseconds(Phase::collective), 3600) << "of whose kind none has been marked";
  EXPECT_EQ(device_.num_reads, 1);
  const PhaseTimes times = phases_.snapshot() - before;
  EXPECT_GE(times.of(Phase::compute), 22'000 - 4800);
  EXPECT_LE(times.unaccounted_ns(), 10) << "readings of the clock";

  const auto records = phases_.collectives().after(0);
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].begin_ns, 5400);
  EXPECT_EQ(records[0].end_ns, 5700);
  EXPECT_EQ(records[0].step, 3u);
  EXPECT_EQ(records[0].collective, 11u);
  EXPECT_EQ(records[0].layer, 5);
}

TEST_F(StepMarksTest, MarksThatNoTimeLiesBetweenChangeNothing) {
  StepMarks all = marks(1);
  MarkedParts parts;
  all.begin(&parts, 0);
  forward();
  all.end();
  device_.moments = {5000, 5000, 5000, 5000, 5000};
  wait(all, {StepKind::replayed, &parts, 0, 1}, 1000);
  EXPECT_EQ(phases_.nanoseconds(Phase::collective), 0);
  EXPECT_EQ(phases_.nanoseconds(Phase::sample), 0);
}

}  // namespace
}  // namespace trireme
