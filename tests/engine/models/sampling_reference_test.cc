// Penalties, biases, bans and log probabilities through the whole engine, against what Hugging Face
// transformers makes of the same checkpoints (make_sampling_references.py).

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include <nlohmann/json.hpp>

#include "tests/engine/models/reference_model.h"
#include "tests/testing/mpi_main.h"

namespace trireme::testing {
namespace {

constexpr float kTolerance = 2e-3f;  // of a log probability, at any tensor-parallel size
constexpr int kTop = 5;

nlohmann::json cases() {
  const auto file =
      nlohmann::json::parse(std::ifstream(std::string(TRIREME_TEST_DATA) + "/sampling_references.json"));
  return file.at("cases");
}

Request request_of(const nlohmann::json& c) {
  Request request;
  request.handle = 1;
  c.at("prompt_ids").get_to(request.prompt);
  request.stopping.max_tokens = static_cast<int32_t>(c.at("output_ids").size());
  request.stopping.min_tokens = c.value("min_tokens", 0);
  request.stopping.stop_token_ids = c.value("stop_ids", std::vector<int32_t>{});
  request.sampling.repetition_penalty = c.value("repetition_penalty", 1.0f);
  request.sampling.presence_penalty = c.value("presence_penalty", 0.0f);
  request.sampling.frequency_penalty = c.value("frequency_penalty", 0.0f);
  const nlohmann::json biases = c.value("logit_bias", nlohmann::json::object());
  for (const auto& [id, bias] : biases.items()) request.sampling.logit_bias.push_back({std::stoi(id), bias});
  request.output.num_top_logprobs = kTop;
  request.output.num_prompt_logprobs = kTop;
  return request;
}

/// `wanted`: [[id, logprob], ...]. Equals may come in either order, so ids are looked up in what is wanted of
/// their logprob.
void expect_top(const TokenLogprob* got, const nlohmann::json& wanted) {
  for (int i = 0; i < kTop; ++i) {
    EXPECT_NEAR(got[i].logprob, wanted[i][1].get<float>(), kTolerance);
    bool found = false;
    for (const auto& entry : wanted)
      found = found ||
              (entry[0] == got[i].token_id && std::abs(entry[1].get<float>() - got[i].logprob) < kTolerance);
    EXPECT_TRUE(found || i == kTop - 1) << "place " << i << ": " << got[i].token_id;
  }
}

TEST(SamplingReferenceTest, TokensAndLogprobsAreThoseOfTransformers) {
  ASSERT_GE(cases().size(), 6u);
  for (const nlohmann::json& c : cases()) {
    const auto reference = load_reference(c.at("model"));
    const auto outputs = generate(reference_engine_config(reference), {request_of(c)});
    if (world().rank() != 0) continue;
    const std::vector<TokenOutput>& got = outputs.at(1);
    std::vector<int32_t> ids;
    for (const TokenOutput& output : got) ids.push_back(output.token_id);
    ASSERT_EQ(ids, c.at("output_ids").get<std::vector<int32_t>>()) << c.at("model");
    for (size_t i = 0; i < got.size(); ++i) {
      EXPECT_NEAR(got[i].logprob, c["logprobs"][i].get<float>(), kTolerance);
      ASSERT_EQ(got[i].top_logprobs().size(), size_t{kTop});
      expect_top(got[i].top_logprobs().data(), c["top"][i]);
    }
    ASSERT_NE(got[0].prompt_logprobs(), nullptr);
    const PromptLogprobs& prompt = *got[0].prompt_logprobs();
    ASSERT_EQ(prompt.logprobs.size(), c["prompt_logprobs"].size());
    for (size_t i = 0; i < prompt.logprobs.size(); ++i) {
      EXPECT_NEAR(prompt.logprobs[i], c["prompt_logprobs"][i].get<float>(), kTolerance);
      expect_top(prompt.top.data() + i * kTop, c["prompt_top"][i]);
    }
  }
}

TEST(SamplingReferenceTest, NothingStopsBeforeMinTokensAndTheFirstStopAfterThemDoes) {
  const Reference reference = load_reference("llama3_rope");
  Request request = greedy_request(1, reference.prompt_ids, 40);
  // Two tokens of the plain continuation; the first is banned where it would have come.
  request.stopping.stop_token_ids = {reference.greedy_ids[2]};
  const auto stopped = generate(reference_engine_config(reference), {request});
  request.stopping.min_tokens = 10;
  const auto later = generate(reference_engine_config(reference), {request});
  if (world().rank() != 0) return;
  EXPECT_EQ(stopped.at(1).back().token_id, reference.greedy_ids[2]);
  EXPECT_EQ(stopped.at(1).back().finish, FinishReason::stop);
  EXPECT_LE(stopped.at(1).size(), 3u);
  const std::vector<TokenOutput>& got = later.at(1);
  ASSERT_GE(got.size(), 10u);
  for (size_t i = 0; i < 10; ++i) EXPECT_NE(got[i].token_id, reference.greedy_ids[2]);
}

}  // namespace
}  // namespace trireme::testing
