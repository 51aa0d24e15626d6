#include "launch/client/engine_bench.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace trireme::client {
namespace {

EngineBenchOptions tiny_options() {
  EngineBenchOptions options;
  options.engine.model = *parse_model_config(R"({
    "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 16, "vocab_size": 512,
    "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
    "tie_word_embeddings": true, "torch_dtype": "float32"})",
                                             "tiny");
  options.engine.dummy_weights = true;
  options.engine.backend = "cpu";
  options.engine.num_threads = 1;
  options.engine.max_num_seqs = 4;
  options.engine.max_step_tokens = 32;
  options.engine.max_context_len = 64;
  options.prompt_tokens = 20;
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

TEST(EngineBenchTest, APromptBeyondTheContextIsAnError) {
  EngineBenchOptions options = tiny_options();
  options.prompt_tokens = 60;
  const auto world = create_single_host_group();
  const auto report = run_engine_bench(options, *world);
  EXPECT_FALSE(report.ok());
}

}  // namespace
}  // namespace trireme::client
