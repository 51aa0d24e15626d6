// A request's bits do not depend on what else is computed beside it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <random>

#include "tests/engine/models/reference_model.h"
#include "tests/testing/mpi_main.h"

namespace trireme::testing {
namespace {

uint32_t bits_of(float value) { return std::bit_cast<uint32_t>(value); }

/// Ids and the bits of the logprobs, the top ones' and the prompt's too: what must not change.
std::vector<uint32_t> bits(const std::vector<TokenOutput>& outputs) {
  std::vector<uint32_t> all;
  const auto append = [&](const std::vector<TokenLogprob>& logprobs) {
    all.push_back(static_cast<uint32_t>(logprobs.size()));
    for (const TokenLogprob& entry : logprobs)
      all.insert(all.end(), {static_cast<uint32_t>(entry.token_id), bits_of(entry.logprob)});
  };
  for (const TokenOutput& output : outputs) {
    append({{output.token_id, output.logprob}});
    append(output.top_logprobs());
    if (output.prompt_logprobs() == nullptr) continue;
    for (const float logprob : output.prompt_logprobs()->logprobs) all.push_back(bits_of(logprob));
    append(output.prompt_logprobs()->top);
  }
  return all;
}

/// Penalties, biases, bans and log probabilities, in several mixtures.
void ask_for_more(int i, Request& request) {
  SamplingParams& sampling = request.sampling;
  if (i % 4 == 1 || i == 6) sampling.repetition_penalty = 1.3f;
  if (i % 4 == 1) sampling.presence_penalty = 0.5f;
  if (i % 4 == 3) sampling.frequency_penalty = 0.8f;
  if (i % 3 == 2) sampling.logit_bias = {{3 + i, 2.5f}, {100 + i, -4.0f}};
  if (i == 4 || i == 7) {
    request.stopping.stop_token_ids = {11, 12, 13, 200 + i};
    request.stopping.min_tokens = request.stopping.max_tokens;  // never drawn
  }
  if (i % 3 != 0) request.output.num_top_logprobs = 2 * i;
  if (i == 2 || i == 5) request.output.num_prompt_logprobs = i;
  if (i == 6) request.output.num_prompt_logprobs = 0;
}

/// Eight requests of different lengths, half of them sampled; some share a prefix.
std::vector<Request> mixed_requests(const Reference& reference) {
  std::vector<Request> requests;
  for (int i = 0; i < 8; ++i) {
    const auto begin = reference.prompt_ids.begin() + (i % 2 == 0 ? 0 : i);
    Request request = greedy_request(i + 1, {begin, reference.prompt_ids.end() - i % 3}, 12 + 3 * i);
    if (i % 2 == 1) request.sampling = {0.9f, 40, 0.95f, 0.01f, 1000u + i};
    ask_for_more(i, request);
    requests.push_back(request);
  }
  return requests;
}

/// Bytes of a KV block of this rank; most where KV heads are not cut.
int64_t block_bytes(const EngineConfig& config) {
  KvCacheSpec spec;
  spec.num_layers = config.model.num_layers;
  spec.num_kv_heads = std::max(1, config.model.num_kv_heads / world().size());
  spec.head_dim = config.model.head_dim;
  spec.block_size = config.block_size;
  spec.dtype = config.compute_dtype == "f32" ? DType::f32 : DType::bf16;
  auto backend = create_cpu_backend({});
  CHECK_EQ(backend.status().ToString(), "OK");
  return static_cast<int64_t>((*backend)->kv_block_bytes(spec));
}

class InvarianceTest : public ::testing::TestWithParam<std::tuple<std::string, std::string>> {
 protected:
  EngineConfig config() const {
    EngineConfig config = reference_engine_config(reference_);
    config.compute_dtype = std::get<1>(GetParam());
    return config;
  }
  std::map<RequestHandle, std::vector<TokenOutput>> one_by_one() const {
    std::map<RequestHandle, std::vector<TokenOutput>> all;
    for (const Request& request : mixed_requests(reference_)) {
      auto one = generate(config(), {request});
      all.merge(one);
    }
    return all;
  }
  void expect_same_bits(const std::map<RequestHandle, std::vector<TokenOutput>>& got,
                        const std::map<RequestHandle, std::vector<TokenOutput>>& expected) const {
    if (world().rank() != 0) return;
    ASSERT_EQ(got.size(), expected.size());
    for (const auto& [handle, outputs] : expected)
      EXPECT_EQ(bits(got.at(handle)), bits(outputs)) << "request " << handle;
  }
  Reference reference_ = load_reference(std::get<0>(GetParam()));
};

TEST_P(InvarianceTest, AloneInABatchAndInChunksTheBitsAreTheSame) {
  const auto alone = one_by_one();
  expect_same_bits(generate(config(), mixed_requests(reference_)), alone);
  EngineConfig small_chunks = config();
  small_chunks.max_step_tokens = 11;
  small_chunks.max_num_seqs = 5;
  expect_same_bits(generate(small_chunks, mixed_requests(reference_)), alone);
}

TEST_P(InvarianceTest, CachedPrefixesAndPreemptionDoNotChangeTheBits) {
  EngineConfig uncached = config();
  uncached.enable_prefix_cache = false;
  const auto expected = generate(uncached, mixed_requests(reference_));
  expect_same_bits(generate(config(), mixed_requests(reference_)), expected);
  EngineConfig cramped =
      config();  // room for little more than one sequence: the others are preempted and computed anew
  cramped.kv_memory_bytes = (cramped.max_context_len / cramped.block_size + 5) * block_bytes(cramped);
  SchedulerStats stats;
  expect_same_bits(generate(cramped, mixed_requests(reference_), &stats), expected);
  EXPECT_TRUE(world().rank() != 0 || stats.preemptions > 0);
}

TEST_P(InvarianceTest, SamplesOfAPromptGiveTheBitsOfEachAlone) {
  Request request = mixed_requests(reference_)[1];
  std::vector<Request> samples;
  std::map<RequestHandle, std::vector<TokenOutput>> alone;
  for (uint32_t i = 0; i < 8; ++i) {
    request.handle = i + 1;
    request.sampling.sample_index = i;
    request.prompt_group = 0;
    alone.merge(generate(config(), {request}));
    request.prompt_group = 1;
    samples.push_back(request);
  }
  EXPECT_TRUE(world().rank() != 0 || bits(alone.at(1)) != bits(alone.at(2)));
  expect_same_bits(generate(config(), samples), alone);
  EngineConfig uncached = config();
  uncached.enable_prefix_cache = false;
  expect_same_bits(generate(uncached, samples), alone);
}

TEST_P(InvarianceTest, ResumedAtEveryCutTheBitsAreTheSame) {
  const auto unbroken = generate(config(), mixed_requests(reference_));
  std::vector<Request> requests;
  std::map<RequestHandle, std::vector<TokenOutput>> expected;
  for (const Request& request : mixed_requests(reference_)) {
    const int32_t num_cuts = request.stopping.max_tokens;
    for (int32_t cut = 0; cut < num_cuts; ++cut) {
      Request resumed = request;
      resumed.handle = 100 * request.handle + static_cast<RequestHandle>(cut);
      if (world().rank() == 0) {
        const std::vector<TokenOutput>& whole = unbroken.at(request.handle);
        for (int32_t i = 0; i < cut; ++i) resumed.resumed_outputs.push_back(whole[i].token_id);
        std::vector<TokenOutput>& rest = expected[resumed.handle];
        rest.assign(whole.begin() + cut, whole.end());
        auto more = std::make_shared<OutputLogprobs>();
        more->top = rest.front().top_logprobs();
        more->prompt = whole.front().prompt_logprobs();
        rest.front().more = more;
      }
      requests.push_back(std::move(resumed));
    }
  }
  expect_same_bits(generate(config(), requests), expected);
}

/// Requests come and are cancelled at random. The tokens and the reason of each, those of the cancelled as
/// far as they came.
struct Outcome {
  std::vector<TokenOutput> outputs;
  bool cancelled = false;
};
std::map<RequestHandle, Outcome> run_workload(const EngineConfig& config, std::vector<Request> requests,
                                              uint32_t seed, int64_t* num_preemptions) {
  auto engine = value_or_die(Engine::create(config, world()));
  std::map<RequestHandle, Outcome> outcomes;
  if (world().rank() != 0) {
    while (value_or_die(engine->follow(std::chrono::seconds(60)))) {
    }
    return outcomes;
  }
  std::mt19937 random(seed);
  std::vector<TokenOutput> outputs;
  size_t next = 0;
  while (next < requests.size() || engine->has_work()) {
    for (uint32_t i = random() % 6; i > 0 && next < requests.size(); --i)
      or_die(engine->submit(requests[next++]));
    if (random() % 16 == 0 && next > 0) {
      const RequestHandle handle = requests[random() % next].handle;
      if (engine->cancel(handle)) outcomes[handle].cancelled = true;
    }
    outputs.clear();
    value_or_die(engine->step(outputs));
    or_die(engine->check_integrity());
    for (const TokenOutput& output : outputs) {
      Outcome& outcome = outcomes[output.handle];
      EXPECT_FALSE(outcome.cancelled && output.has_token) << "a token after the cancel";
      if (output.has_token) outcome.outputs.push_back(output);
    }
  }
  or_die(engine->broadcast_stop());
  EXPECT_EQ(engine->stats().blocks_free, engine->stats().blocks_total);
  *num_preemptions += engine->stats().preemptions;
  return outcomes;
}

TEST_P(InvarianceTest, PlansLaunchedBeforeTokensAreReadGiveTheSameBits) {
  std::vector<Request> requests;
  for (RequestHandle copy = 0; copy < 3; ++copy) {
    for (Request request : mixed_requests(reference_)) {
      request.handle += 100 * copy;
      request.sampling.seed += copy;
      // Ids that some outputs meet: what a plan computes past them is discarded.
      if (copy > 0) request.stopping.stop_token_ids = {reference_.prompt_ids[0], 7};
      requests.push_back(std::move(request));
    }
  }
  const auto alone = generate(config(), requests);
  EngineConfig cramped = config();
  cramped.kv_memory_bytes = (cramped.max_context_len / cramped.block_size + 1) * block_bytes(cramped);
  int64_t num_preemptions = 0;
  for (const int steps_ahead : {0, 1, 2}) {
    cramped.steps_ahead = steps_ahead;
    const auto outcomes =
        run_workload(cramped, requests, 5 + static_cast<uint32_t>(steps_ahead), &num_preemptions);
    for (const auto& [handle, outcome] : outcomes) {
      auto expected = bits(alone.at(handle));
      const auto got = bits(outcome.outputs);
      if (outcome.cancelled) expected.resize(std::min(expected.size(), got.size()));
      EXPECT_EQ(got, expected) << "request " << handle << ", " << steps_ahead << " ahead";
    }
  }
  EXPECT_TRUE(world().rank() != 0 || num_preemptions > 0);
}

TEST(StepsAheadTest, AFollowerOfAnIdleLeaderHasNoStepInFlight) {
  const Reference reference = load_reference("qwen3");
  EngineConfig config = reference_engine_config(reference);
  config.steps_ahead = 1;
  auto engine = value_or_die(Engine::create(config, world()));
  if (world().rank() == 0) {
    or_die(engine->submit(greedy_request(1, reference.prompt_ids, 4)));
    std::vector<TokenOutput> outputs;
    while (engine->has_work()) CHECK_EQ(value_or_die(engine->step(outputs)), true);
    or_die(engine->broadcast_idle());
    or_die(engine->broadcast_stop());
  } else {
    bool was_running = false, is_running = false;
    while (value_or_die(engine->follow(std::chrono::seconds(60)))) {
      is_running = engine->progress().running.load();
      was_running = was_running || is_running;
    }
    EXPECT_TRUE(was_running) << "between two plans a step is in flight";
    EXPECT_FALSE(is_running) << "after the leader said that it is idle";
  }
}

INSTANTIATE_TEST_SUITE_P(All, InvarianceTest,
                         ::testing::Combine(::testing::Values("llama3_rope", "mistral_window", "qwen3"),
                                            ::testing::Values("f32", "bf16")),
                         [](const auto& parameters) {
                           return std::get<0>(parameters.param) + "_" + std::get<1>(parameters.param);
                         });

}  // namespace
}  // namespace trireme::testing
