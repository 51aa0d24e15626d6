// What the CUDA backend promises of a request that is computed in another batch, in other chunks, or resumed:
// the same token wherever the two best logits are further apart than a stated gap. (The CPU promises the same
// bits: invariance_test.cc.)

#include <cuda_runtime.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/cuda/cuda_backend.h"
#include "tests/engine/models/reference_model.h"
#include "tests/testing/mpi_main.h"

namespace trireme::testing {
namespace {

// Called here so that it comes from the stand-in's library, whatever the engine brings along.
const bool kHasStandIn = create_cuda_backend({}).ok();
constexpr RequestHandle kNumRequests = 9;  // more rows than the kernel for few rows takes
constexpr int kNumTokens = 3;

using Outputs = std::map<RequestHandle, std::vector<TokenOutput>>;

class ExactnessTest : public ::testing::TestWithParam<DType> {
 protected:
  void SetUp() override {
    // Once for all cases of a dtype.
    static auto* const by_dtype = new std::map<DType, std::pair<float, Outputs>>;
    auto& [gap, alone] = (*by_dtype)[GetParam()];
    if (alone.empty()) {
      const std::vector<int32_t>& ids = reference_.prompt_ids;
      HandLoaded model(config());
      const auto logits = model.logits(ids, {static_cast<int32_t>(ids.size()) - 1});
      float largest = 0;
      for (const float logit : logits[0]) largest = std::max(largest, std::abs(logit));
      gap = cuda::equal_up_to(GetParam()) * largest;
      EngineConfig one_at_a_time = config();
      one_at_a_time.max_num_seqs = 1;
      alone = generate(one_at_a_time, requests());
    }
    gap_ = gap;
    alone_ = alone;
  }

  EngineConfig config() const {
    CHECK_EQ(kHasStandIn, true);
    EngineConfig config = reference_engine_config(reference_);
    config.backend = "cuda";
    config.compute_dtype = std::string(dtype_name(GetParam()));
    config.enable_prefix_cache = false;
    config.capture_decodes = false;
    config.kv_memory_bytes = 4 << 20;
    config.num_threads = 2;
    // Heads that tensor cores attend with, and rows that the library takes.
    config.dummy_weights = true;
    config.model.num_layers = 1;
    config.model.num_heads = 4;
    config.model.num_kv_heads = 2;
    config.model.head_dim = 64;
    return config;
  }

  std::vector<Request> requests() const {
    std::vector<Request> all;
    for (RequestHandle i = 0; i < kNumRequests; ++i) {
      const auto begin = reference_.prompt_ids.begin() + static_cast<int64_t>(i);
      all.push_back(greedy_request(i + 1, {begin, begin + 5 + static_cast<int64_t>(2 * i) % 13}, kNumTokens));
      all.back().output.num_top_logprobs = 2;
    }
    return all;
  }

  /// Counts the outputs that were compared, and those of other bits.
  void expect_equal_up_to_the_gap(const Outputs& got, int first_output) {
    for (const auto& [handle, wanted] : alone_) {
      const std::vector<TokenOutput>& outputs = got.at(handle);
      ASSERT_EQ(outputs.size() + static_cast<size_t>(first_output), wanted.size());
      for (size_t i = 0; i < outputs.size(); ++i) {
        const TokenOutput& want = wanted[i + static_cast<size_t>(first_output)];
        ASSERT_EQ(want.top_logprobs().size(), 2u);
        EXPECT_NEAR(outputs[i].top_logprobs()[0].logprob, want.top_logprobs()[0].logprob, gap_)
            << "request " << handle << ", output " << i;
        ++num_compared_;
        num_of_other_bits_ += outputs[i].logprob != want.logprob;
        if (outputs[i].token_id == want.token_id) continue;
        EXPECT_LE(want.top_logprobs()[0].logprob - want.top_logprobs()[1].logprob, gap_)
            << "request " << handle << ", output " << i;
        break;  // from here on they are of different texts
      }
    }
  }

  const Reference reference_ = load_reference("llama_tied");
  float gap_ = 0;
  Outputs alone_;
  int num_compared_ = 0, num_of_other_bits_ = 0;
};

TEST_P(ExactnessTest, InABatchTokensAreEqualUpToTheGap) {
  expect_equal_up_to_the_gap(generate(config(), requests()), 0);
  EXPECT_GT(num_compared_, static_cast<int>(kNumRequests) * kNumTokens / 2);
  EXPECT_GT(num_of_other_bits_, 0) << "compared with itself";
}

TEST_P(ExactnessTest, InOtherChunksTokensAreEqualUpToTheGap) {
  EngineConfig chunks = config();
  chunks.max_num_seqs = 5;
  chunks.max_step_tokens = 13;
  expect_equal_up_to_the_gap(generate(chunks, requests()), 0);
  EXPECT_GT(num_compared_, static_cast<int>(kNumRequests) * kNumTokens / 2);
}

TEST_P(ExactnessTest, ResumedTokensAreEqualUpToTheGap) {
  constexpr int kCut = kNumTokens / 2;
  std::vector<Request> resumed = requests();
  for (Request& request : resumed)
    for (int i = 0; i < kCut; ++i)
      request.resumed_outputs.push_back(alone_.at(request.handle)[static_cast<size_t>(i)].token_id);
  expect_equal_up_to_the_gap(generate(config(), resumed), kCut);
  EXPECT_GT(num_compared_, static_cast<int>(kNumRequests) * (kNumTokens - kCut) / 2);
}

INSTANTIATE_TEST_SUITE_P(CudaOnCpu, ExactnessTest, ::testing::Values(DType::f32, DType::bf16, DType::f16),
                         [](const auto& dtype) { return std::string(dtype_name(dtype.param)); });

}  // namespace
}  // namespace trireme::testing
