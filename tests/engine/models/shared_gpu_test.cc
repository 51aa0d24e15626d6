// Ranks that share one GPU, which is the processor here: TP > 1 on a machine with a single device.

#include <cuda_runtime.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

#include "tests/engine/models/reference_model.h"
#include "tests/testing/mpi_main.h"

namespace trireme::testing {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

// Both called here so that they come from the stand-in's library, whatever the engine brings along.
const bool kHasStandIn = (simt::set_strict(true), create_cuda_backend({}).ok() && num_cuda_devices() == 1);

bool shared() { return world().size() > 1; }

EngineConfig config_on(const std::string& backend) {
  CHECK_EQ(kHasStandIn, true);
  EngineConfig config = reference_engine_config(load_reference("llama3_rope"));
  config.backend = backend;
  config.max_num_seqs = 4;
  config.max_step_tokens = 24;
  config.kv_memory_bytes = 1 << 20;
  return config;
}

TEST(SharedGpuTest, TheTokensAreThoseOfTheCpu) {
  const auto requests = [] {
    const std::vector<int32_t> prompt = load_reference("llama3_rope").prompt_ids;
    std::vector<Request> three;
    for (int i = 0; i < 3; ++i)
      three.push_back(greedy_request(static_cast<RequestHandle>(i + 1),
                                     {prompt.begin() + 2 * i, prompt.begin() + 9 + 4 * i}, 6));
    three[1].sampling = {0.8f, 40, 0.9f, 0.01f, 71};
    three[2].output.num_top_logprobs = 2;
    return three;
  };
  const auto on_gpu = generate(config_on("cuda"), requests());
  const auto on_cpu = generate(config_on("cpu"), requests());
  EXPECT_EQ(on_cpu.size(), world().rank() == 0 ? 3u : 0u);
  for (const auto& [handle, wanted] : on_cpu) {
    const std::vector<TokenOutput>& got = on_gpu.at(handle);
    ASSERT_EQ(got.size(), wanted.size());
    for (size_t i = 0; i < got.size(); ++i) {
      EXPECT_EQ(got[i].token_id, wanted[i].token_id) << "request " << handle << ", token " << i;
      EXPECT_NEAR(got[i].logprob, wanted[i].logprob, 1e-3f);
    }
  }
}

TEST(SharedGpuTest, LedgerAndNotesSaySo) {
  HandLoaded model(config_on("cuda"));
  const LoadedRank& rank = model.rank();
  EXPECT_EQ(rank.placement.device, 0);
  EXPECT_EQ(rank.placement.num_sharers, world().size());
  EXPECT_EQ(rank.ledger.num_sharers, world().size());
  if (!shared()) {
    EXPECT_THAT(rank.notes, Not(Contains(HasSubstr("share"))));
    return;
  }
  EXPECT_EQ(rank.group->name(), "mpi staged over host memory");
  EXPECT_THAT(rank.notes, Contains(HasSubstr("GPU 0 is shared by 2 of the 2 ranks on this host")));
  EXPECT_THAT(rank.notes, Contains(AllOf(StartsWith("collectives: mpi staged over host memory"),
                                         HasSubstr("since ranks share a GPU"))));
}

/// What is set aside for recorded steps.
double recorded_mebibytes() { return shared() ? 0 : static_cast<double>(kMostGraphBytes >> 20); }

/// MiB that the cache may take, told by the error of a context that no share of the device's 8 GiB holds.
double fitted_mebibytes(int64_t leave_bytes) {
  EngineConfig config = config_on("cuda");
  config.kv_memory_bytes = 0;
  config.leave_bytes = leave_bytes;
  config.model.max_position_embeddings = config.max_context_len = 1 << 27;
  const absl::Status status = load_rank(config, world()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  const std::string text(status.message());
  EXPECT_EQ(text.find("; 2 ranks share GPU 0") != std::string::npos, shared()) << text;
  const size_t end = text.find(" MiB may be used");
  if (end == std::string::npos || end == 0) return -1;
  return std::strtod(text.c_str() + text.rfind(' ', end - 1), nullptr);
}

TEST(SharedGpuTest, TheCacheIsFittedToAPartOfTheMemory) {
  // Room for attention's partial results is 384 MiB at least; ranks that share a GPU record no steps.
  const double whole = 8192.0 / world().size() - recorded_mebibytes();
  const double part = std::min(kKvCacheShare * whole, whole - 384);
  const double fitted = fitted_mebibytes(0);
  EXPECT_LT(fitted, part);
  EXPECT_GT(fitted, part - 64);
}

TEST(SharedGpuTest, TheCacheLeavesWhatOthersInTheProcessAreToHave) {
  const double left = 8192.0 / world().size() - recorded_mebibytes() - 384 - 3072;
  const double fitted = fitted_mebibytes(int64_t{3} << 30);
  EXPECT_LT(fitted, left);
  EXPECT_GT(fitted, left - 64);
}

TEST(SharedGpuTest, NcclIsRefusedOnEveryRankWithTheWayOut) {
  if (!shared()) GTEST_SKIP() << "one rank shares with nobody";
  EngineConfig config = config_on("cuda");
  config.collectives = "nccl";
  const absl::Status status = load_rank(config, world()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("2 ranks on this host and 1 visible GPU"), HasSubstr("--collectives mpi")));
}

}  // namespace
}  // namespace trireme::testing
