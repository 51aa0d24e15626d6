// Whole tiny models on the CUDA backend, compiled for the processor, through the engine that serves: against
// the references, against the CPU backend, and captured steps against steps that are not.

#include <cuda_runtime.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/engine/models/reference_model.h"
#include "tests/testing/mpi_main.h"

namespace trireme::testing {
namespace {

using ::testing::HasSubstr;

// Called here so that it comes from the stand-in's library, whatever the engine brings along.
const bool kHasStandIn = (simt::set_strict(true), create_cuda_backend({}).ok());

EngineConfig config_on(const std::string& backend, const Reference& reference) {
  CHECK_EQ(kHasStandIn, true);
  EngineConfig config = reference_engine_config(reference);
  config.backend = backend;
  config.max_num_seqs = 5;
  config.max_step_tokens = 24;
  config.kv_memory_bytes = 1 << 20;
  config.num_threads = 2;
  return config;
}

/// One greedy, one drawn, one with penalties and biases, one that asks for log probabilities.
std::vector<Request> mixed_requests(const Reference& reference) {
  std::vector<Request> requests;
  for (int i = 0; i < 4; ++i) {
    const auto begin = reference.prompt_ids.begin() + 3 * i;
    Request request = greedy_request(static_cast<RequestHandle>(i + 1), {begin, begin + 6 + i}, 4 + i);
    if (i > 0) request.sampling = {0.8f, 40, 0.9f, 0.01f, 70u + static_cast<unsigned>(i)};
    if (i == 2) {
      request.sampling.repetition_penalty = 1.3f;
      request.sampling.frequency_penalty = 0.4f;
      request.sampling.logit_bias = {{5, 1.5f}, {6, -3.0f}};
      request.stopping.stop_token_ids = {11, 12};
      request.stopping.min_tokens = request.stopping.max_tokens;  // never drawn
    }
    if (i == 3) {
      request.output.num_top_logprobs = 3;
      request.output.num_prompt_logprobs = 2;
    }
    requests.push_back(std::move(request));
  }
  return requests;
}

std::vector<int32_t> ids_of(const std::vector<TokenOutput>& outputs) {
  std::vector<int32_t> ids;
  for (const TokenOutput& output : outputs) ids.push_back(output.token_id);
  return ids;
}

/// Log probabilities of all kinds, in order.
std::vector<float> logprobs_of(const std::vector<TokenOutput>& outputs) {
  std::vector<float> all;
  for (const TokenOutput& output : outputs) {
    all.push_back(output.logprob);
    for (const TokenLogprob& top : output.top_logprobs()) all.push_back(top.logprob);
    if (output.prompt_logprobs() == nullptr) continue;
    for (const float logprob : output.prompt_logprobs()->logprobs) all.push_back(logprob);
    for (const TokenLogprob& top : output.prompt_logprobs()->top) all.push_back(top.logprob);
  }
  return all;
}

class CudaOnCpuModelTest : public ::testing::TestWithParam<std::string> {
 protected:
  Reference reference_ = load_reference(GetParam());
};

TEST_P(CudaOnCpuModelTest, LogitsAreThoseOfTransformers) {
  HandLoaded model(config_on("cuda", reference_));
  ASSERT_EQ(model.rank().backend->name(), "cuda");
  const auto logits = model.logits(
      reference_.prompt_ids, {reference_.positions[0], reference_.positions[1], reference_.positions[2]});
  EXPECT_LT(largest_difference(logits, {reference_.logits.begin(), reference_.logits.begin() + 3}),
            1e-4f * reference_.max_abs_logit);
}

TEST_P(CudaOnCpuModelTest, CapturedOrNotAheadOrNotTheTokensAreThoseOfTheCpu) {
  const auto of_cpu = generate(config_on("cpu", reference_), mixed_requests(reference_));
  std::map<RequestHandle, std::vector<float>> logprobs;
  for (const bool captures : {false, true}) {
    EngineConfig config = config_on("cuda", reference_);
    config.capture_decodes = captures;
    config.steps_ahead = captures ? 1 : 0;
    const auto outputs = generate(config, mixed_requests(reference_));
    for (const auto& [handle, wanted] : of_cpu) {
      const std::vector<float> got = logprobs_of(outputs.at(handle)), close = logprobs_of(wanted);
      EXPECT_EQ(ids_of(outputs.at(handle)), ids_of(wanted)) << "request " << handle << ", " << captures;
      ASSERT_EQ(got.size(), close.size());
      for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], close[i], 1e-3f);
      // Fewer than nine rows are multiplied one by one: their bits do not depend on the padding.
      if (captures)
        EXPECT_EQ(got, logprobs.at(handle)) << "request " << handle;
      else
        logprobs[handle] = got;
    }
  }
}

/// Heads of 64, which tensor cores attend with, and drawn weights.
EngineConfig wide_heads(const std::string& backend, const std::string& cuda_dtype = "bf16") {
  EngineConfig config = config_on(backend, load_reference("llama_tied"));
  config.dummy_weights = true;
  config.compute_dtype = backend == "cuda" ? cuda_dtype : "f32";
  config.model.num_heads = 4;
  config.model.num_kv_heads = 2;
  config.model.head_dim = 64;
  return config;
}

class CudaOnCpuNarrowTest : public ::testing::TestWithParam<DType> {};

TEST_P(CudaOnCpuNarrowTest, LogitsAreThoseOfF32RoundedOnTheWay) {
  const std::vector<int32_t> ids = load_reference("llama_tied").prompt_ids;
  HandLoaded narrow(wide_heads("cuda", std::string(dtype_name(GetParam())))), wide(wide_heads("cpu"));
  ASSERT_EQ(narrow.rank().backend->activation_dtype(), GetParam());
  ASSERT_EQ(narrow.rank().compute_dtype, GetParam());
  const auto got = narrow.logits(ids, {0, 17, 30}), wanted = wide.logits(ids, {0, 17, 30});
  float largest = 0;
  for (const float logit : wanted[2]) largest = std::max(largest, std::abs(logit));
  const float difference = largest_difference(got, wanted);
  EXPECT_LT(difference, (GetParam() == DType::f16 ? 0.005f : 0.04f) * largest);
  EXPECT_GT(difference, 0) << "compared with itself";
}

INSTANTIATE_TEST_SUITE_P(DTypes, CudaOnCpuNarrowTest, ::testing::Values(DType::bf16, DType::f16),
                         [](const auto& dtype) { return std::string(dtype_name(dtype.param)); });

/// A checkpoint of f16 is served in f16, whose rounding is an eighth of bf16's.
TEST(CudaOnCpuF16Test, ACheckpointOfF16StaysF16FromLoadingToTokens) {
  EngineConfig config = wide_heads("cuda", "auto");
  config.model.checkpoint_dtype = DType::f16;
  const Reference reference = load_reference("llama_tied");
  HandLoaded model(config);
  EXPECT_EQ(model.rank().compute_dtype, DType::f16);
  for (const std::string& note : model.rank().notes) EXPECT_THAT(note, ::testing::Not(HasSubstr("held as")));
  std::vector<std::vector<int32_t>> ids;
  for (const bool captures : {false, true}) {
    config.capture_decodes = captures;
    const auto outputs = generate(config, mixed_requests(reference));
    ids.emplace_back();
    for (const auto& [handle, tokens] : outputs) {
      for (const TokenOutput& token : tokens) {
        EXPECT_TRUE(std::isfinite(token.logprob)) << "request " << handle;
        ids.back().push_back(token.token_id);
      }
    }
  }
  EXPECT_EQ(ids[0].size(), 4u + 5 + 6 + 7);
  EXPECT_EQ(ids[0], ids[1]);
}

TEST(CudaOnCpuBf16Test, ActivationsTakeWhatThePlanSays) {
  HandLoaded model(wide_heads("cuda"));
  LoadedRank& rank = model.rank();
  StepPhases phases;
  StepProgress progress;
  const auto taken = [&](int max_tokens) {
    rank.runner.limits.max_num_tokens = max_tokens;
    const int64_t before = rank.backend->available_memory_bytes();
    const auto runner = value_or_die(ModelRunner::create(rank.runner, *rank.backend, *rank.group, *rank.model,
                                                         *rank.cache, phases, progress));
    return before - rank.backend->available_memory_bytes();
  };
  const auto predicted = [&](const ModelShape& shape, int max_tokens) {
    return activation_bytes(shape, rank.runner.layout, 0, max_tokens, rank.runner.limits.max_num_seqs);
  };
  EXPECT_EQ(rank.ledger.lines[2].predicted, predicted(rank.runner.shape, rank.runner.limits.max_num_tokens));
  taken(120);  // scratch memory and kernels that were loaded stay with the backend
  // What does not grow with the tokens falls out; the step's plan, a few integers per token, remains.
  const int64_t few = predicted(rank.runner.shape, 24), many = predicted(rank.runner.shape, 120);
  const int64_t grown = taken(120) - taken(24);
  EXPECT_GE(grown, many - few);
  EXPECT_LT(grown, (many - few) * 21 / 20);
  // As a coordinator plans it.
  ModelShape planned = model_shape(wide_heads("cuda").model, "", DType::bf16, DType::bf16);
  planned.activation_dtype_bytes = static_cast<int>(dtype_bytes(rank.backend->activation_dtype()));
  EXPECT_EQ(predicted(planned, 120), many);
}

TEST(CudaOnCpuLoadTest, HeadsThatAreTooLargeAreNamedBeforeAnythingIsLoaded) {
  EngineConfig config = config_on("cuda", load_reference("llama_tied"));
  config.dummy_weights = true;
  config.model.head_dim = 264;
  // More weights than the device has memory for: drawing them would fail first.
  config.model.hidden_size = 1 << 16;
  config.model.num_layers = 200;
  const absl::Status status = load_rank(config, world()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << status;
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("attention heads of 264 elements, wanted at most 256"));
}

/// A prompt in slot 0, then two decodes that continue what the plan before has drawn.
std::vector<StepPlan> dependent_plans(const std::vector<int32_t>& prompt) {
  std::vector<StepPlan> plans(3);
  for (int32_t i = 0; i < 3; ++i) {
    StepPlan& plan = plans[static_cast<size_t>(i)];
    plan.slots = {0};
    plan.token_ids = i == 0 ? prompt : std::vector<int32_t>{kLastToken};
    plan.query_lens = {plan.num_tokens()};
    plan.context_lens = {static_cast<int32_t>(prompt.size()) + i};
    plan.num_blocks = {3};
    plan.block_tables = {4, 2, 7};
    plan.sample = {1};
    plan.sampling.push_back({0.9f, 0, 1, 0, 3, 0, static_cast<uint32_t>(i)});
  }
  return plans;
}

TEST(CudaOnCpuRunnerTest, PlansAreLaunchedOneAfterTheOtherWithoutAWait) {
  const Reference reference = load_reference("qwen3");
  const std::vector<int32_t> prompt(reference.prompt_ids.begin(), reference.prompt_ids.begin() + 9);
  HandLoaded model(config_on("cuda", reference));
  LoadedRank& rank = model.rank();
  StepPhases phases;
  StepProgress progress;
  std::vector<int32_t> one_by_one, at_once;
  const auto make_runner = [&](int steps_ahead) {
    rank.runner.steps_ahead = steps_ahead;
    return value_or_die(ModelRunner::create(rank.runner, *rank.backend, *rank.group, *rank.model, *rank.cache,
                                            phases, progress));
  };
  {
    const auto runner = make_runner(0);
    for (const StepPlan& plan : dependent_plans(prompt))
      one_by_one.push_back(runner->run(plan).sampled_ids[0]);
  }
  const auto runner = make_runner(2);
  EXPECT_EQ(value_or_die(runner->capture_decodes()).num_graphs, 4) << "of 1, 2, 4 and 5 sequences";
  const uint64_t num_waits = simt::num_waits();
  for (const StepPlan& plan : dependent_plans(prompt)) runner->launch(plan);
  EXPECT_EQ(simt::num_waits(), num_waits);
  for (int i = 0; i < 3; ++i) at_once.push_back(runner->collect().sampled_ids[0]);
  EXPECT_GT(simt::num_waits(), num_waits);
  EXPECT_EQ(at_once, one_by_one);
}

/// Notes how large the collectives of a group become.
class MeasuredGroup final : public ProcessGroup {
 public:
  explicit MeasuredGroup(std::unique_ptr<ProcessGroup> group) : group_(std::move(group)) {}
  int rank() const override { return group_->rank(); }
  int size() const override { return group_->size(); }
  std::string name() const override { return group_->name(); }
  bool can_be_captured() const override { return true; }
  void all_reduce_sum(const Tensor& tensor) override {
    most_summed = std::max(most_summed, tensor.rows);
    group_->all_reduce_sum(tensor);
  }
  void gather_cols(const Tensor& part, const Tensor& whole) override {
    most_gathered = std::max(most_gathered, part.rows);
    group_->gather_cols(part, whole);
  }
  void broadcast(const Tensor& tensor) override { group_->broadcast(tensor); }

  int64_t most_summed = 0, most_gathered = 0;

 private:
  std::unique_ptr<ProcessGroup> group_;
};

TEST(CudaOnCpuRunnerTest, WarmedUpIsWhatTheLargestStepsNeed) {
  EngineConfig config = config_on("cuda", load_reference("qwen3"));
  config.shard_size = 2;
  HandLoaded model(config);
  LoadedRank& rank = model.rank();
  auto measured = std::make_unique<MeasuredGroup>(std::move(rank.group));
  const MeasuredGroup& group = *measured;
  rank.group = std::move(measured);
  StepPhases phases;
  StepProgress progress;
  const auto runner = value_or_die(ModelRunner::create(rank.runner, *rank.backend, *rank.group, *rank.model,
                                                       *rank.cache, phases, progress));
  runner->warm_up();
  EXPECT_EQ(group.most_summed, config.max_step_tokens);
  EXPECT_EQ(group.most_gathered, config.max_num_seqs);
}

TEST(CudaOnCpuRunnerTest, DecodesThatTheMemoryDoesNotHoldAreComputedUncaptured) {
  const Reference reference = load_reference("qwen3");
  HandLoaded model(config_on("cuda", reference));
  LoadedRank& rank = model.rank();
  StepPhases phases;
  StepProgress progress;
  const auto make_runner = [&] {
    return value_or_die(ModelRunner::create(rank.runner, *rank.backend, *rank.group, *rank.model, *rank.cache,
                                            phases, progress));
  };
  const CaptureStats all = value_or_die(make_runner()->capture_decodes());
  EXPECT_EQ(all.num_graphs, all.num_shapes);
  EXPECT_GT(all.bytes, 0);
  const auto runner = make_runner();
  const int64_t left = (int64_t{128} << 20) + all.bytes / 2;
  size_t free = 0, total = 0;
  ASSERT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
  simt::set_device_bytes(total - free + static_cast<size_t>(left));
  const CaptureStats some = value_or_die(runner->capture_decodes());
  simt::set_device_bytes(total);
  EXPECT_EQ(some.num_shapes, all.num_shapes);
  EXPECT_GE(some.num_graphs, 1);
  EXPECT_LT(some.num_graphs, all.num_graphs);
  StepPlan plan;  // larger than what was recorded
  for (int32_t s = 0; s < 5; ++s) {
    plan.slots.push_back(s);
    plan.token_ids.push_back(reference.prompt_ids[0]);
    plan.query_lens.push_back(1);
    plan.context_lens.push_back(1);
    plan.num_blocks.push_back(1);
    plan.block_tables.push_back(s);
    plan.sample.push_back(1);
    plan.sampling.emplace_back();
  }
  const std::vector<int32_t> ids = runner->run(plan).sampled_ids;
  EXPECT_EQ(ids, std::vector<int32_t>(5, ids[0]));
}

INSTANTIATE_TEST_SUITE_P(Models, CudaOnCpuModelTest, ::testing::Values("llama3_rope", "qwen3"),
                         [](const auto& name) { return name.param; });

}  // namespace
}  // namespace trireme::testing
