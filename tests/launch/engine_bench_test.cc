#include "launch/client/engine_bench.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "launch/client/commands.h"
#include "launch/client/engine_bench_overhead.h"
#include "launch/client/engine_bench_scenarios.h"
#include "tests/testing/trace_check.h"

namespace trireme::client {
namespace {

constexpr char kTinyModel[] = R"({
    "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 16, "vocab_size": 512,
    "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
    "tie_word_embeddings": true, "torch_dtype": "float32"})";

EngineBenchOptions tiny_options() {
  EngineBenchOptions options;
  options.engine.model = *parse_model_config(kTinyModel, "tiny");
  options.engine.dummy_weights = true;
  options.engine.backend = "cpu";
  options.engine.num_threads = 1;
  options.engine.max_num_seqs = 4;
  options.engine.max_step_tokens = 32;
  options.engine.max_context_len = 64;
  options.prompt_tokens = {20};
  options.output_tokens = 12;
  options.probe_bytes = 1 << 20;
  return options;
}

TEST(EngineBenchTest, EveryBatchIsMeasuredAndLeavesNothingToTheNext) {
  EngineBenchOptions options = tiny_options();
  options.batches = {1, 3, 4, 2};
  const auto world = create_single_host_group();
  const auto report = run_engine_bench(options, *world);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->compute_dtype, "f32");
  EXPECT_GT(report->read_gb_s, 0);
  ASSERT_EQ(report->batches.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    const BatchFigures& row = report->batches[i];
    EXPECT_EQ(row.batch, options.batches[i]);
    EXPECT_GT(row.prefill_tokens_per_s, 0);
    EXPECT_GT(row.decode_tokens_per_s, 0);
    EXPECT_GE(row.decode_step_ms_p99, row.decode_step_ms * 0.99);
    EXPECT_GT(row.decode_bandwidth_fraction, 0);
    // What binds is what allows least, and the ceiling is that one's.
    const double most = std::max(row.decode_bandwidth_fraction, row.decode_rows_fraction);
    EXPECT_EQ(row.limit, most == row.decode_bandwidth_fraction ? "read" : "oneDNN");
    EXPECT_DOUBLE_EQ(row.ceiling_tokens_per_s * most, row.decode_tokens_per_s);
    EXPECT_DOUBLE_EQ(row.decode_speedup * report->batches[0].decode_tokens_per_s, row.decode_tokens_per_s);
    double step = 0, computing = 0;
    for (const auto& [phase, milliseconds] : row.decode_phases_ms) {
      step += milliseconds;
      if (phase == "compute" || phase == "collective") computing += milliseconds;
    }
    EXPECT_GT(computing, 0);
    EXPECT_NEAR(row.decode_host_fraction, 1 - computing / step, 1e-9);
    EXPECT_EQ(row.decode_phases_ms.back().first, "unaccounted");
    EXPECT_NEAR(row.decode_unaccounted_fraction, row.decode_phases_ms.back().second / step, 1e-9);
    EXPECT_GE(row.decode_unaccounted_fraction, 0);
  }
}

TEST(EngineBenchTest, EveryBatchIsMeasuredWithEveryPromptThatTheCacheHolds) {
  EngineBenchOptions options = tiny_options();
  options.prompt_tokens = {4, 40};
  options.batches = {1, 3, 4};
  options.repeats = 1;
  // Two layers' keys and values of four heads of 16: 1,024 bytes for a token, so 11 blocks of 16 tokens.
  options.engine.kv_memory_bytes = 11 * 16 * 1024;
  const auto world = create_single_host_group();
  const auto report = run_engine_bench(options, *world);
  ASSERT_TRUE(report.ok()) << report.status();
  std::vector<std::pair<int, int>> measured;
  for (const BatchFigures& row : report->batches) {
    measured.emplace_back(row.prompt_tokens, row.batch);
    EXPECT_GT(row.decode_tokens_per_s, 0);
    if (row.batch == 1) {
      EXPECT_EQ(row.decode_speedup, 1) << "of as long prompts";
    }
  }
  // 40 + 12 tokens take four blocks.
  EXPECT_THAT(measured,
              ::testing::ElementsAre(std::pair(4, 1), std::pair(4, 3), std::pair(4, 4), std::pair(40, 1)));
  ASSERT_EQ(report->left_out.size(), 2u);
  EXPECT_EQ(report->left_out[0].batch, 3);
  EXPECT_EQ(report->left_out[1].batch, 4);
  for (const LeftOut& row : report->left_out) {
    EXPECT_EQ(row.prompt_tokens, 40);
    EXPECT_EQ(row.wanted_tokens, row.batch * 64);
    EXPECT_EQ(row.cache_tokens, 11 * 16);
  }
}

TEST(EngineBenchTest, OneShardOfEightHoldsAnEighth) {
  EngineBenchOptions options = tiny_options();
  options.batches = {1};
  options.repeats = 1;
  options.engine.shard_size = 8;
  options.engine.shard_rank = 5;
  const auto world = create_single_host_group();
  const auto report = run_engine_bench(options, *world);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->tp_size, 8);
  EXPECT_EQ(report->ledger.rank, 5);
  EXPECT_THAT(report->notes, ::testing::Contains(::testing::HasSubstr("rank 5 of 8 by itself")));
}

TEST(EngineBenchTest, ATraceOfTheLastStepsIsWritten) {
  EngineBenchOptions options = tiny_options();
  options.batches = {2};
  options.repeats = 1;
  options.trace_file = ::testing::TempDir() + "/engine_bench_trace.json";
  options.engine.trace_steps = 100;
  const auto world = create_single_host_group();
  ASSERT_TRUE(run_engine_bench(options, *world).ok());
  std::ostringstream text;
  text << std::ifstream(options.trace_file).rdbuf();
  std::filesystem::remove(options.trace_file);
  auto summary = trireme::testing::check_trace(text.str());
  EXPECT_THAT(summary.error, ::testing::IsEmpty());
  const auto events = summary.events[{0, 0}];
  EXPECT_GE(events.at("step"), options.output_tokens);
  EXPECT_GE(events.at("phase compute"), options.output_tokens);
}

TEST(EngineBenchTest, APromptBeyondTheContextIsAnError) {
  EngineBenchOptions options = tiny_options();
  options.prompt_tokens = {60};
  const auto world = create_single_host_group();
  const auto report = run_engine_bench(options, *world);
  EXPECT_FALSE(report.ok());
}

TEST(EngineBenchCommandTest, ItsCollectivesAreTheEngines) {
  const std::string path = ::testing::TempDir() + "/engine_bench_tiny.json";
  std::ofstream(path) << kTinyModel;
  const auto run = [&path](const std::string& collectives) {
    CLI::App app;
    int exit_code = -1;
    add_bench_command(app, exit_code);
    app.parse("bench engine --load-format dummy --model-config " + path +
              " --backend cpu --threads 1 --batch 1 --prompt-tokens 2 --output-tokens 2 --repeats 1 "
              "--collectives " +
              collectives);
    return exit_code;
  };
  EXPECT_THROW(run("gloo"), CLI::ValidationError);
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(run("nccl"), kExitInvalid);
  EXPECT_THAT(::testing::internal::GetCapturedStderr(),
              ::testing::HasSubstr("collectives nccl: NCCL connects NVIDIA GPUs and the backend is cpu"));
  std::filesystem::remove(path);
}

TEST(EngineBenchCommandTest, OutputsMayEndInTheLastBlockOfTheirPrompts) {
  const std::string path = ::testing::TempDir() + "/engine_bench_blocks.json";
  std::ofstream(path) << kTinyModel;
  CLI::App app;
  int exit_code = -1;
  add_bench_command(app, exit_code);
  ::testing::internal::CaptureStdout();
  app.parse(
      "bench engine --load-format dummy --model-config " + path +
      " --backend cpu --threads 1 --batch 1,2,4 --prompt-tokens 9,25 --output-tokens 4 --repeats 1 --json");
  const auto report = nlohmann::json::parse(::testing::internal::GetCapturedStdout());
  EXPECT_EQ(exit_code, kExitOk);
  EXPECT_EQ(report["batches"].size(), 6u);
  EXPECT_FALSE(report.contains("left_out"));
  EXPECT_EQ(report["workload"]["prompt_tokens"], (nlohmann::json{9, 25}));
  std::filesystem::remove(path);
}

ScenarioOptions tiny_scenario() {
  ScenarioOptions options;
  options.engine = tiny_options().engine;
  options.engine.max_context_len = 0;
  options.prefix_prompt_tokens = 100;
  options.streams = 3;
  options.long_prompt_tokens = 80;
  options.stream_steps = 10;
  options.repeats = 2;
  return options;
}

TEST(EngineScenarioTest, AColdPromptIsComputedAndASharedOneIsNot) {
  const auto world = create_single_host_group();
  const auto report = run_prefix_scenario(tiny_scenario(), *world);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->cold.size(), 2u);
  EXPECT_EQ(report->shared.size(), 2u);
  EXPECT_EQ(report->shared_tokens, 90);
  EXPECT_EQ(report->cached_tokens, 80);  // whole blocks of 16
  EXPECT_GT(report->ratio, 0);
  EXPECT_THAT(report->to_text(), ::testing::HasSubstr("90 of them shared (80 cached)"));
}

TEST(EngineScenarioTest, StreamsGetTheirTokensWhileALongPromptIsComputed) {
  const auto world = create_single_host_group();
  const auto report = run_chunked_scenario(tiny_scenario(), *world);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->chunk_tokens, 32);
  EXPECT_EQ(report->samples, 20u);
  EXPECT_GT(report->chunk_ms, 0);
  EXPECT_GT(report->long_ttft_ms, 0);
  EXPECT_GE(report->disturbed_max, report->disturbed_p99);
  EXPECT_EQ(report->rises.size(), 2u);
  EXPECT_THAT(report->to_text(), ::testing::HasSubstr("median of 2 repeats"));
  EXPECT_EQ(report->to_json()["samples"], 20);
}

TEST(EngineScenarioTest, TheCostOfTimelinesIsMeasuredInTurns) {
  OverheadOptions options;
  options.engine = tiny_options().engine;
  options.streams = 3;
  options.steps = 62;
  options.repeats = 2;
  const auto world = create_single_host_group();
  const auto report = run_overhead_scenario(options, *world);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->fours, 2u * (64 - 16) / 4);
  EXPECT_GT(report->on_ms, 0);
  EXPECT_GT(report->off_ms, 0);
  EXPECT_GT(report->report_ms, 0);
  EXPECT_LE(report->quartile_1, report->overhead);
  EXPECT_GE(report->quartile_3, report->overhead);
  EXPECT_EQ(report->to_json()["overhead_fraction"], report->overhead);
}

TEST(EngineScenarioTest, APromptOfLessThanAChunkIsRefused) {
  ScenarioOptions options = tiny_scenario();
  options.long_prompt_tokens = 31;
  const auto world = create_single_host_group();
  const auto report = run_chunked_scenario(options, *world);
  EXPECT_EQ(report.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(report.status().message()),
              ::testing::HasSubstr("at least as many tokens as the 32"));
}

}  // namespace
}  // namespace trireme::client
