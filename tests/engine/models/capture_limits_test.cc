// Bounds of what capturing decode steps takes, on the CUDA backend compiled for the processor.

#include <cuda_runtime.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/engine/models/reference_model.h"
#include "tests/testing/mpi_main.h"

namespace trireme::testing {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;

// Called here so that it comes from the stand-in's library, whatever the engine brings along.
const bool kHasStandIn = create_cuda_backend({}).ok();
constexpr int kNumShapes = 4;  // 1, 2, 4 and 5 sequences

EngineConfig config_on_cuda() {
  CHECK_EQ(kHasStandIn, true);
  EngineConfig config = reference_engine_config(load_reference("llama_tied"));
  config.backend = "cuda";
  config.max_num_seqs = 5;
  config.max_step_tokens = 24;
  config.kv_memory_bytes = 1 << 20;
  config.num_threads = 2;
  return config;
}

class CaptureLimitsTest : public ::testing::Test {
 protected:
  CaptureStats capture(const CaptureLimits& limits) {
    LoadedRank& rank = model_.rank();
    auto runner = value_or_die(ModelRunner::create(rank.runner, *rank.backend, *rank.group, *rank.model,
                                                   *rank.cache, phases_, progress_));
    return value_or_die(runner->capture_decodes(limits));
  }
  /// What all shapes take.
  int64_t whole_bytes() { return capture({}).bytes; }

  HandLoaded model_{config_on_cuda()};
  StepPhases phases_;
  StepProgress progress_;
};

TEST_F(CaptureLimitsTest, WithinThemAllShapesAreCaptured) {
  const CaptureStats stats = capture({});
  EXPECT_EQ(stats.num_graphs, kNumShapes);
  EXPECT_EQ(stats.num_shapes, kNumShapes);
  EXPECT_EQ(stats.ended, "");
  EXPECT_GT(stats.bytes, 0);
}

TEST_F(CaptureLimitsTest, ItEndsWithTheShapeThatUsesUpTheMemory) {
  CaptureLimits limits;
  limits.bytes = whole_bytes() / 2;
  const CaptureStats stats = capture(limits);
  EXPECT_GT(stats.num_graphs, 0);
  EXPECT_LT(stats.num_graphs, kNumShapes);
  EXPECT_EQ(stats.num_shapes, kNumShapes);
  EXPECT_GE(stats.bytes, limits.bytes);
  EXPECT_THAT(stats.ended, HasSubstr("MiB are used up"));
}

TEST_F(CaptureLimitsTest, ItEndsWhenTheTimeIsOver) {
  CaptureLimits limits;
  limits.time = std::chrono::milliseconds(0);
  const CaptureStats stats = capture(limits);
  EXPECT_EQ(stats.num_graphs, 1);
  EXPECT_EQ(stats.ended, "their 0 s are over");
}

TEST(CaptureBoundsTest, AServiceGoesOnWithoutWhatWasNotCapturedAndSaysSo) {
  const std::vector<int32_t> prompt = load_reference("llama_tied").prompt_ids;
  const auto requests = [&] {
    std::vector<Request> three;
    for (RequestHandle i = 0; i < 3; ++i)
      three.push_back(
          greedy_request(i + 1, {prompt.begin() + static_cast<int64_t>(i), prompt.begin() + 9}, 5));
    return three;
  };
  EngineConfig config = config_on_cuda();
  const auto wanted = generate(config, requests());
  config.capture_time = std::chrono::milliseconds(0);
  const auto got = generate(config, requests());
  for (const auto& [handle, outputs] : wanted) {
    ASSERT_EQ(got.at(handle).size(), outputs.size());
    for (size_t i = 0; i < outputs.size(); ++i)
      EXPECT_EQ(got.at(handle)[i].token_id, outputs[i].token_id) << "request " << handle << ", token " << i;
  }
  const auto engine = value_or_die(Engine::create(config, world()));
  EXPECT_THAT(engine->notes(), Contains(AllOf(HasSubstr("1 of 4 decode steps captured"),
                                              HasSubstr("since their 0 s are over"))));
  const auto& lines = engine->ledger().lines;
  EXPECT_EQ(lines.back().kind, kGraphsLine);
  EXPECT_EQ(lines.back().predicted, kMostGraphBytes);
  EXPECT_GT(lines.back().measured, 0);
}

/// Whatever requests ask for: the device has not a byte left for a step.
TEST(StepMemoryTest, StepsTakeNothingOfTheDevice) {
  const std::vector<int32_t> prompt = load_reference("llama_tied").prompt_ids;
  for (const bool captures : {true, false}) {
    EngineConfig config = config_on_cuda();
    config.capture_decodes = captures;
    const auto engine = value_or_die(Engine::create(config, world()));
    size_t free = 0, total = 0;
    ASSERT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
    simt::set_device_bytes(total - free);
    for (RequestHandle i = 0; i < 7; ++i) {  // more than run at once, and together more than a step's tokens
      Request request =
          greedy_request(i + 1, {prompt.begin(), prompt.begin() + 9 + static_cast<int64_t>(i)}, 4);
      if (i % 2 == 1) request.sampling = {0.8f, 40, 0.9f, 0.01f, 70u + i};
      if (i % 3 == 0) request.sampling.repetition_penalty = 1.3f;
      if (i % 3 == 1) request.output.num_top_logprobs = request.output.num_prompt_logprobs = 3;
      if (i % 3 == 2) request.sampling.logit_bias = {{5, 1.5f}};
      or_die(engine->submit(std::move(request)));
    }
    int num_tokens = 0;
    for (std::vector<TokenOutput> outputs; engine->has_work(); outputs.clear()) {
      ASSERT_TRUE(value_or_die(engine->step(outputs)));
      for (const TokenOutput& output : outputs) num_tokens += output.has_token;
    }
    EXPECT_EQ(num_tokens, 7 * 4);
    simt::set_device_bytes(total);
  }
}

TEST(LoadLedgerTest, MemoryThatRunsOutShowsWhatNeedsWhat) {
  EngineConfig config = config_on_cuda();
  config.max_step_tokens = 65536;
  size_t free = 0, total = 0;
  ASSERT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
  const auto leave = [&](size_t bytes) { simt::set_device_bytes(total - free + bytes); };
  leave(8 << 20);  // for weights and cache, but not for 65,536 tokens' activations
  const absl::Status activations = Engine::create(config, world()).status();
  EXPECT_EQ(activations.code(), absl::StatusCode::kResourceExhausted) << activations;
  EXPECT_THAT(
      std::string(activations.message()),
      AllOf(HasSubstr("wanted "), HasSubstr("rank 0 needs: weights "), HasSubstr("KV cache 0.5 MiB"),
            HasSubstr("activations "), HasSubstr("decode graphs 512.0 MiB"), HasSubstr("lower --kv-memory")));
  leave(600 << 10);  // weights take 0.9 MiB
  const absl::Status weights = load_rank(config, world()).status();
  simt::set_device_bytes(total);
  EXPECT_EQ(weights.code(), absl::StatusCode::kResourceExhausted) << weights;
  EXPECT_THAT(std::string(weights.message()),
              AllOf(HasSubstr("rank 0 of 1 needs "), HasSubstr(" for weights"),
                    HasSubstr("for each token of KV cache")));
}

}  // namespace
}  // namespace trireme::testing
