// Whole models on the CUDA backend, at the tensor-parallel size of this test's world: on a device, and
// compiled for the processor. Ranks sum over MPI, staged over host memory, so that one device is enough.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <type_traits>

#include "tests/engine/models/gpu_cases.h"
#include "tests/engine/models/gpu_model.h"
#include "tests/testing/mpi_main.h"

namespace trireme::testing {
namespace {

class GpuModelsTest : public GpuTest, public ::testing::WithParamInterface<std::string> {
 protected:
  const Reference reference_ = load_reference(GetParam());
};

TEST_P(GpuModelsTest, LogitsAreThoseOfTransformers) {
  const auto count = static_cast<size_t>(gpu_cases().num_positions);
  ASSERT_LE(count, reference_.positions.size());
  std::vector<int32_t> ids = reference_.prompt_ids;
  ids.insert(ids.end(), reference_.greedy_ids.begin(), reference_.greedy_ids.end());
  HandLoaded model(gpu_engine_config(reference_));
  ASSERT_EQ(model.rank().backend->name(), "cuda");
  const auto first_of = [&](const auto& all) {
    return std::decay_t<decltype(all)>(all.begin(), all.begin() + static_cast<int64_t>(count));
  };
  const auto logits = model.logits(ids, first_of(reference_.positions));
  if (world().rank() != 0) return;
  EXPECT_LT(largest_difference(logits, first_of(reference_.logits)), 1e-4f * reference_.max_abs_logit);
}

TEST_P(GpuModelsTest, GreedyTokensAreThoseOfTransformersCapturedOrNot) {
  const int count = gpu_cases().num_greedy_tokens;
  const std::vector<int32_t> wanted(reference_.greedy_ids.begin(), reference_.greedy_ids.begin() + count);
  for (const bool captures : {false, true}) {
    EngineConfig config = gpu_engine_config(reference_);
    config.capture_decodes = captures;
    const auto outputs = generate(config, {greedy_request(1, reference_.prompt_ids, count)});
    if (world().rank() != 0) continue;
    std::vector<int32_t> ids;
    for (const TokenOutput& output : outputs.at(1)) ids.push_back(output.token_id);
    EXPECT_EQ(ids, wanted) << (captures ? "captured" : "not captured");
  }
}

/// Two prompts, then decodes of what was drawn. Of at most eight tokens, so that no product is the library's,
/// which may add in another order the next time.
std::vector<StepPlan> small_plans(const std::vector<int32_t>& ids) {
  constexpr int32_t kPromptLen = 4, kNumDecodes = 6;
  std::vector<StepPlan> plans(1 + kNumDecodes);
  for (int32_t i = 0; i <= kNumDecodes; ++i) {
    StepPlan& plan = plans[static_cast<size_t>(i)];
    plan.slots = {0, 1};
    if (i == 0)
      plan.token_ids.assign(ids.begin(), ids.begin() + 2 * kPromptLen);
    else
      plan.token_ids = {kLastToken, kLastToken};
    const int32_t query_len = i == 0 ? kPromptLen : 1;
    plan.query_lens = {query_len, query_len};
    plan.context_lens = {kPromptLen + i, kPromptLen + i};
    plan.num_blocks = {2, 2};
    plan.block_tables = {4, 2, 7, 3};
    plan.sample = {1, 1};
    plan.sampling.push_back({0.9f, 0, 1, 0, 3, 0, static_cast<uint32_t>(i)});
    plan.sampling.push_back({0.0f, 0, 1, 0, 4, 0, static_cast<uint32_t>(i)});
  }
  return plans;
}

struct Drawn {
  std::vector<int32_t> ids;
  std::vector<std::vector<float>> logits;
};

Drawn run_plans(LoadedRank& rank, const std::vector<StepPlan>& plans, bool captures) {
  StepPhases phases;
  StepProgress progress;
  const auto runner = value_or_die(ModelRunner::create(rank.runner, *rank.backend, *rank.group, *rank.model,
                                                       *rank.cache, phases, progress));
  if (captures) {
    EXPECT_GT(value_or_die(runner->capture_decodes()).num_graphs, 0);
  }
  Drawn drawn;
  for (const StepPlan& plan : plans) {
    const std::vector<int32_t> ids = runner->run(plan).sampled_ids;
    drawn.ids.insert(drawn.ids.end(), ids.begin(), ids.end());
    drawn.logits.push_back(runner->last_logits());
  }
  return drawn;
}

TEST_P(GpuModelsTest, AGraphGivesTheBitsOfItsOperationsOneByOne) {
  if (world().size() > 1) GTEST_SKIP() << "collectives that are staged over the host are in no graph";
  HandLoaded model(gpu_engine_config(reference_));
  const std::vector<StepPlan> plans = small_plans(reference_.prompt_ids);
  const Drawn plain = run_plans(model.rank(), plans, /*captures=*/false),
              captured = run_plans(model.rank(), plans, /*captures=*/true);
  EXPECT_EQ(captured.ids, plain.ids);
  EXPECT_EQ(captured.logits, plain.logits);
  ASSERT_EQ(plain.logits.size(), plans.size());
  EXPECT_NE(plain.logits[1], plain.logits[2]) << "of different tokens";
}

INSTANTIATE_TEST_SUITE_P(All, GpuModelsTest, ::testing::ValuesIn(gpu_cases().references),
                         [](const auto& name) { return name.param; });

}  // namespace
}  // namespace trireme::testing
