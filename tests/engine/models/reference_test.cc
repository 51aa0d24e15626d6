// Every architecture against what Hugging Face transformers computes, at the tensor-parallel size of this
// test's world.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/engine/models/reference_model.h"
#include "tests/testing/mpi_main.h"

namespace trireme::testing {
namespace {

class ReferenceTest : public ::testing::TestWithParam<std::string> {};

std::vector<int32_t> whole_text(const Reference& reference) {
  std::vector<int32_t> ids = reference.prompt_ids;
  ids.insert(ids.end(), reference.greedy_ids.begin(), reference.greedy_ids.end());
  return ids;
}

TEST_P(ReferenceTest, LogitsAreThoseOfTransformers) {
  const Reference reference = load_reference(GetParam());
  HandLoaded model(reference_engine_config(reference));
  const auto logits = model.logits(whole_text(reference), reference.positions);
  if (world().rank() != 0) return;
  EXPECT_LT(largest_difference(logits, reference.logits), 1e-4f * reference.max_abs_logit);
}

TEST_P(ReferenceTest, GreedyTokensAreThoseOfTransformers) {
  const Reference reference = load_reference(GetParam());
  const int count = static_cast<int>(reference.greedy_ids.size());
  const auto outputs =
      generate(reference_engine_config(reference), {greedy_request(1, reference.prompt_ids, count)});
  if (world().rank() != 0) return;
  std::vector<int32_t> ids;
  for (const TokenOutput& output : outputs.at(1)) ids.push_back(output.token_id);
  EXPECT_EQ(ids, reference.greedy_ids);
  EXPECT_EQ(outputs.at(1).back().finish, FinishReason::length);
}

INSTANTIATE_TEST_SUITE_P(All, ReferenceTest, ::testing::ValuesIn(reference_names()),
                         [](const auto& name) { return name.param; });

}  // namespace
}  // namespace trireme::testing
