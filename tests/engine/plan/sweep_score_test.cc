#include "engine/plan/sweep_score.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tests/engine/plan/tables.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;

NumberFormat format(const std::string& name) { return *parse_number_format(name, "test"); }

SweepConditions published() {
  SweepConditions conditions;
  conditions.model = *testing::model_table().find("Llama-3.1-70B");
  conditions.gpu = *testing::gpu_table().find("H200");
  conditions.weights = conditions.cache = format("fp8");
  return conditions;
}

StepModel small_model() {
  const ModelShape shape =
      *with_formats(testing::model_table().find("Llama-3.2-1B")->shape, format("bf16"), format("bf16"));
  return *StepModel::create(shape, *layout_tensor_parallel(shape, 1), *testing::gpu_table().find("H200"),
                            format("bf16"), AllReduceCost(), {});
}

/// The same rule, sequence by sequence.
double naive_seconds(const StepModel& model, const SaturatingLoad& load) {
  struct Sequence {
    int computed = 0, produced = 0;
  };
  std::vector<Sequence> running;
  int waiting = load.num_requests;
  double seconds = 0;
  while (waiting > 0 || !running.empty()) {
    StepLoad step;
    for (Sequence& one : running) {
      if (one.computed < load.prompt_tokens) continue;
      step.decode_seqs += 1;
      step.decode_context += load.prompt_tokens + one.produced;
      ++one.produced;
    }
    int room = std::max(load.max_step_tokens - static_cast<int>(step.decode_seqs), 1);
    step.sampled_rows = step.decode_seqs;
    for (size_t i = 0; room > 0; ++i) {
      if (i == running.size()) {
        if (waiting == 0 || static_cast<int>(running.size()) == load.max_running) break;
        --waiting;
        running.emplace_back();
      }
      Sequence& one = running[i];
      for (; room > 0 && one.computed < load.prompt_tokens; --room) {
        ++one.computed;
        step.prefill_tokens += 1;
        step.prefill_attended += one.computed;
        if (one.computed == load.prompt_tokens) {
          one.produced = 1;
          step.sampled_rows += 1;
        }
      }
    }
    seconds += model.cost(step).total();
    std::erase_if(running, [&](const Sequence& one) { return one.produced == load.output_tokens; });
  }
  return seconds;
}

TEST(SaturationTest, AgreesWithFollowingEachSequence) {
  const StepModel model = small_model();
  for (const SaturatingLoad& load :
       {SaturatingLoad{7, 5, 40, 6, 16}, SaturatingLoad{100, 3, 20, 50, 64}, SaturatingLoad{1, 1, 9, 2, 1},
        SaturatingLoad{5, 40, 30, 20, 8}, SaturatingLoad{33, 9, 25, 4, 512}}) {
    const SaturatedRate rate = saturate(model, load);
    EXPECT_NEAR(rate.seconds / naive_seconds(model, load), 1, 1e-9)
        << load.prompt_tokens << " " << load.output_tokens;
    EXPECT_NEAR(rate.output_tokens_per_s, load.num_requests * load.output_tokens / rate.seconds, 1e-6);
    EXPECT_NEAR(rate.spent.total(), rate.seconds, 1e-9 * rate.seconds);
  }
}

TEST(SaturationTest, MoreAtOnceIsFasterUntilAllRun) {
  const StepModel model = small_model();
  const double one = saturate(model, {64, 64, 64, 1, 512}).output_tokens_per_s;
  const double many = saturate(model, {64, 64, 64, 64, 512}).output_tokens_per_s;
  EXPECT_GT(many, 10 * one);
  EXPECT_EQ(saturate(model, {64, 64, 64, 1000, 512}).output_tokens_per_s, many);
}

TEST(SweepScoreTest, ErrorsAreRelativeToWhatWasPublished) {
  EXPECT_NEAR(relative_error(110, 100), 0.1, 1e-12);
  EXPECT_NEAR(relative_error(50, 200), -0.75, 1e-12);
  EXPECT_EQ(median_absolute({}), 0);
  EXPECT_NEAR(median_absolute({-0.5, 0.1, 0.3}), 0.3, 1e-12);
  EXPECT_NEAR(median_absolute({0.4, -0.2, 0.1, -0.9}), 0.3, 1e-12);
}

TEST(SweepScoreTest, APointThatWasPublishedAsPredictedHasNoError) {
  std::vector<SweepPoint> points = {{500, 100, 200, 2, 1, false}};
  const AllReduceTable all_reduce = testing::all_reduce_table();
  auto scores = score_sweep(points, published(), all_reduce);
  ASSERT_TRUE(scores.ok()) << scores.status();
  points[0].output_tokens_per_s = (*scores)[0].predicted.output_tokens_per_s;
  EXPECT_EQ((*score_sweep(points, published(), all_reduce))[0].error, 0);
  points[0].output_tokens_per_s *= 2;
  EXPECT_NEAR((*score_sweep(points, published(), all_reduce))[0].error, -0.5, 1e-12);
}

TEST(SweepScoreTest, ThePublishedSweepIsPredictedAsWellAsItWas) {
  const auto text = read_table_file(testing::scaling_file("h200_llama70b_fp8.csv"));
  ASSERT_TRUE(text.ok());
  const auto points = parse_sweep(*text, "sweep");
  ASSERT_TRUE(points.ok()) << points.status();
  EXPECT_EQ(points->size(), 36u);
  const auto scores = score_sweep(*points, published(), testing::all_reduce_table());
  ASSERT_TRUE(scores.ok()) << scores.status();
  std::vector<double> errors;
  for (const PointScore& score : *scores) errors.push_back(score.error);
  EXPECT_LT(median_absolute(errors), 0.20);
  for (const PointScore& score : *scores) EXPECT_LT(std::abs(score.error), 0.5) << score.point.prompt_tokens;
}

// Sweeps that nothing was chosen by.
TEST(SweepScoreTest, OtherDevicesArePredictedAsWellAsTheyWere) {
  const AllReduceTable all_reduce = testing::all_reduce_table();
  const auto median = [&](const char* file, const char* gpu, const char* dtype) {
    const auto text = read_table_file(testing::scaling_file(file));
    const auto points = parse_sweep(*text, file);
    EXPECT_TRUE(points.ok()) << points.status();
    SweepConditions conditions = published();
    conditions.gpu = *testing::gpu_table().find(gpu);
    conditions.weights = conditions.cache = format(dtype);
    const auto scores = score_sweep(*points, conditions, all_reduce);
    EXPECT_TRUE(scores.ok()) << scores.status();
    std::vector<double> errors;
    for (const PointScore& score : *scores) errors.push_back(score.error);
    return median_absolute(errors);
  };
  EXPECT_LT(median("h100_llama70b_fp8.csv", "H100-SXM", "fp8"), 0.25);
  EXPECT_LT(median("h100_llama70b_f16.csv", "H100-SXM", "f16"), 0.25);
  EXPECT_LT(median("a100_llama70b_f16.csv", "A100-80", "f16"), 0.20);
}

TEST(SweepScoreTest, FaultsAreNamed) {
  const std::string header = "prompt_tokens,output_tokens,requests,tp_size,output_tokens_per_s\n";
  EXPECT_THAT(std::string(parse_sweep(header + "1,2,3,4,0\n", "s.csv").status().message()),
              HasSubstr("s.csv:2: column output_tokens_per_s: got '0'"));
  const AllReduceTable all_reduce = testing::all_reduce_table();
  SweepConditions conditions = published();
  conditions.weights = format("bf16");
  conditions.gpu = *testing::gpu_table().find("H100-SXM");
  EXPECT_THAT(
      std::string(score_sweep({{128, 128, 10, 1, 1, false}}, conditions, all_reduce).status().message()),
      HasSubstr("does not fit H100-SXM"));
  EXPECT_THAT(
      std::string(score_sweep({{128, 128, 10, 3, 1, false}}, conditions, all_reduce).status().message()),
      HasSubstr("cannot be cut for tensor-parallel size 3"));
}

}  // namespace
}  // namespace trireme
