// Random requests on the CUDA backend, some of them cancelled, with too little memory for all that run.

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

#include "tests/engine/models/gpu_cases.h"
#include "tests/engine/models/gpu_model.h"
#include "tests/testing/mpi_main.h"

namespace trireme::testing {
namespace {

constexpr int kMostPromptTokens = 30, kMostOutputTokens = 30;

class GpuWorkloadTest : public GpuTest {
 protected:
  GpuWorkloadTest() {
    // Little more than one context: who runs beside others is preempted now and then.
    config_.kv_memory_bytes = (config_.max_context_len / config_.block_size + 2) * block_bytes();
  }

  int64_t block_bytes() const {
    KvCacheSpec spec;
    spec.num_layers = config_.model.num_layers;
    spec.num_kv_heads = config_.model.num_kv_heads / world().size();
    spec.head_dim = config_.model.head_dim;
    spec.block_size = config_.block_size;
    spec.dtype = DType::f32;
    return 2 * int64_t{spec.num_layers} * spec.num_kv_heads * spec.head_dim * spec.block_size *
           static_cast<int64_t>(dtype_bytes(spec.dtype));
  }

  int32_t up_to(int32_t most) { return 1 + static_cast<int32_t>(random_() % static_cast<uint32_t>(most)); }
  bool one_in(uint32_t count) { return random_() % count == 0; }

  Request random_request(RequestHandle handle) {
    std::vector<int32_t> prompt(static_cast<size_t>(up_to(kMostPromptTokens)));
    for (int32_t& id : prompt) id = up_to(config_.model.vocab_size - 1);
    // A prefix that others have, too.
    if (one_in(3)) std::copy_n(reference_.prompt_ids.begin(), prompt.size(), prompt.begin());
    Request request = greedy_request(handle, std::move(prompt), up_to(kMostOutputTokens));
    if (one_in(2)) request.sampling = {0.9f, up_to(60), 0.95f, 0.01f, random_()};
    if (one_in(4)) request.sampling.repetition_penalty = 1.2f;
    if (one_in(4)) request.sampling.logit_bias = {{up_to(100), 2.0f}};
    if (one_in(4)) request.output.num_top_logprobs = up_to(5);
    if (one_in(8)) request.output.num_prompt_logprobs = up_to(3);
    if (one_in(4)) request.stopping.stop_token_ids = {7, 11, 100};
    request.priority = up_to(3);
    return request;
  }

  /// Submits, cancels and steps until all have ended.
  void lead(Engine& engine) {
    const auto num_requests = static_cast<RequestHandle>(gpu_cases().num_random_requests);
    RequestHandle last = 0;
    std::vector<TokenOutput> outputs;
    while (last < num_requests || engine.has_work()) {
      for (uint32_t i = random_() % 4; i > 0 && last < num_requests; --i)
        or_die(engine.submit(random_request(++last)));
      if (last > 0 && one_in(12) && engine.cancel(last - random_() % std::min<RequestHandle>(last, 8)))
        ++num_cancelled_;
      outputs.clear();
      value_or_die(engine.step(outputs));
      or_die(engine.check_integrity());
      for (const TokenOutput& output : outputs) {
        if (output.finish == FinishReason::none) continue;
        EXPECT_TRUE(ended_.insert(output.handle).second) << "request " << output.handle << " ended twice";
      }
    }
    or_die(engine.broadcast_stop());
  }

  const Reference reference_ = load_reference("llama3_rope");
  EngineConfig config_ = gpu_engine_config(reference_);
  std::mt19937 random_{11};
  std::set<RequestHandle> ended_;
  int num_cancelled_ = 0;
};

TEST_F(GpuWorkloadTest, RandomRequestsWithCancelsLeaveAllBlocksFree) {
  if (world().size() > gpu_cases().most_ranks_of_random_requests) GTEST_SKIP() << "slow on fibers";
  const auto engine = value_or_die(Engine::create(config_, world()));
  if (world().rank() != 0) {
    while (value_or_die(engine->follow(std::chrono::seconds(60)))) {
    }
    return;
  }
  lead(*engine);
  const SchedulerStats stats = engine->stats();
  EXPECT_EQ(ended_.size(), static_cast<size_t>(gpu_cases().num_random_requests));
  EXPECT_EQ(stats.finished, gpu_cases().num_random_requests);
  EXPECT_EQ(stats.running, 0);
  EXPECT_EQ(stats.waiting, 0);
  EXPECT_EQ(stats.blocks_free, stats.blocks_total);
  EXPECT_EQ(stats.blocks_of_finished, 0);
  EXPECT_GT(stats.preemptions, 0);
  EXPECT_GT(num_cancelled_, 0);
}

}  // namespace
}  // namespace trireme::testing
