#include "engine/plan/planner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "tests/engine/plan/tables.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;

NumberFormat format(const std::string& name) { return *parse_number_format(name, "test"); }

PlanRequest request_for(const std::string& model, const std::string& gpu, const std::string& dtype = "bf16") {
  PlanRequest request;
  request.model = *testing::model_table().find(model);
  request.gpu = *testing::gpu_table().find(gpu);
  request.weights = format(dtype);
  request.cache = format(dtype == "fp8" ? "fp8" : "bf16");
  return request;
}

PlanReport plan(const PlanRequest& request) {
  auto report = plan_deployment(request, testing::all_reduce_table());
  EXPECT_TRUE(report.ok()) << report.status();
  return report.ok() ? *std::move(report) : PlanReport();
}

const LayoutEstimate& layout(const PlanReport& report, int devices, int tp_size) {
  for (const LayoutEstimate& one : report.layouts) {
    if (one.devices == devices && one.tp_size == tp_size) return one;
  }
  ADD_FAILURE() << "no TP" << tp_size << " of " << devices;
  static const LayoutEstimate none;
  return none;
}

std::string why_not(const PlanRequest& request) {
  return std::string(plan_deployment(request, testing::all_reduce_table()).status().message());
}

/// Every weight of one rank, tensor by tensor and head by head.
int64_t naive_weight_bytes(const ModelShape& model, int tp_size, int rank) {
  const int64_t hidden = model.hidden_size, dim = model.head_dim,
                group = model.num_heads / model.num_kv_heads;
  int64_t heads = 0, kv_heads = 0, last_kv = -1;
  for (int64_t head = 0; head < model.num_heads; ++head) {
    if (head * tp_size / model.num_heads != rank) continue;
    ++heads;
    if (head / group != last_kv) ++kv_heads;
    last_kv = head / group;
  }
  int64_t bytes = 0;
  for (int layer = 0; layer < model.num_layers; ++layer) {
    const int64_t projections = 2 * heads * dim * hidden + 2 * kv_heads * dim * hidden;
    int64_t columns = 0;
    for (int64_t i = 0; i < model.intermediate_size; ++i)
      columns += i * tp_size / model.intermediate_size == rank;
    bytes += (projections + 3 * columns * hidden) * model.weight_dtype_bytes;
    bytes += 4 * 2 * hidden;
    if (model.qkv_bias) bytes += 4 * (heads + 2 * kv_heads) * dim;
    if (model.qk_norm) bytes += 4 * 2 * dim;
    if (model.mlp_bias) bytes += 4 * (2 * columns + (rank == 0 ? hidden : 0));
    if (model.out_bias && rank == 0) bytes += 4 * hidden;
  }
  int64_t vocab = (model.vocab_size + tp_size - 1) / tp_size;
  while (vocab % 16 != 0) ++vocab;
  return bytes + 4 * hidden + (model.tie_word_embeddings ? 1 : 2) * vocab * hidden * model.weight_dtype_bytes;
}

TEST(RankBytesTest, AgreesWithCountingEveryTensor) {
  std::mt19937 random(7);
  const auto pick = [&](int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); };
  for (int i = 0; i < 200; ++i) {
    ModelShape model;
    const int tp_size = 1 << pick(0, 3);
    model.num_kv_heads = 1 << pick(0, 4);
    model.num_heads = std::max(model.num_kv_heads, tp_size) << pick(0, 2);
    model.head_dim = 2 * pick(4, 64);
    model.hidden_size = 8 * pick(1, 300);
    model.intermediate_size = tp_size * pick(1, 400);
    model.num_layers = pick(1, 20);
    model.vocab_size = pick(1, 50000);
    model.weight_dtype_bytes = pick(0, 1) == 0 ? 2 : 4;
    model.tie_word_embeddings = pick(0, 1) == 1;
    model.qkv_bias = pick(0, 1) == 1;
    model.qk_norm = pick(0, 1) == 1;
    model.mlp_bias = pick(0, 1) == 1;
    model.out_bias = pick(0, 1) == 1;
    const auto cut = layout_tensor_parallel(model, tp_size);
    ASSERT_TRUE(cut.ok()) << cut.status();
    const int rank = pick(0, tp_size - 1);
    EXPECT_EQ(rank_bytes(model, *cut, rank, 1, 1).weights, naive_weight_bytes(model, tp_size, rank)) << i;
  }
}

TEST(PlannerTest, SeventyBillionParametersOnH100s) {
  const PlanReport report = plan(request_for("Llama-3.1-70B", "H100-SXM"));
  // 70.55e9 parameters of 2 bytes are 141.1 GB; a device has 80 GiB.
  const LayoutEstimate& one = layout(report, 1, 1);
  EXPECT_THAT(one.refused, HasSubstr("does not fit: 1 sequence of 4096 tokens need"));
  EXPECT_THAT(one.refused, HasSubstr("weights 131.4"));
  EXPECT_NEAR(static_cast<double>(one.weight_bytes_all), 141.1e9, 0.1e9);
  EXPECT_EQ(layout(report, 2, 2).refused, "");
  EXPECT_NE(layout(report, 2, 1).refused, "");
  EXPECT_LT(layout(report, 2, 2).largest_batch, layout(report, 4, 4).largest_batch / 4);
  EXPECT_EQ(layout(report, 8, 2).replicas, 4);
  EXPECT_GT(layout(report, 8, 8).latency.user_tokens_per_s, layout(report, 8, 4).latency.user_tokens_per_s);
  EXPECT_NEAR(static_cast<double>(layout(report, 8, 8).bytes.weights), 141.1e9 / 8, 0.01e9);
}

TEST(PlannerTest, SeventyBillionParametersOnRtx3090s) {
  PlanRequest request = request_for("Llama-3.1-70B", "RTX 3090");
  const PlanReport report = plan(request);
  for (int devices : {1, 2, 4})
    EXPECT_THAT(layout(report, devices, devices).refused, HasSubstr("RTX 3090 has 23.5 usable"));
  EXPECT_EQ(layout(report, 8, 8).refused, "");  // 17.6 GB of weights each
  EXPECT_NE(layout(report, 8, 4).refused, "");
  request.weights = format("int4");
  EXPECT_EQ(layout(plan(request), 2, 2).refused, "");  // about 38 GB
}

TEST(PlannerTest, LayoutsThatCannotBeCutSayWhy) {
  PlanRequest request = request_for("Qwen2.5-7B", "H100-SXM");
  const PlanReport report = plan(request);
  EXPECT_THAT(layout(report, 8, 8).refused, HasSubstr("num_heads 28 is not a multiple of it"));
  EXPECT_EQ(layout(report, 8, 4).refused, "");
  EXPECT_TRUE(layout(report, 8, 4).best || layout(report, 8, 2).best || layout(report, 8, 1).best);
}

TEST(PlannerTest, TheLargestBatchFitsAndOneMoreDoesNot) {
  for (const char* model : {"Llama-3.1-70B", "Llama-3.2-1B", "Jet-Nemotron-2B"}) {
    const PlanReport report = plan(request_for(model, "H200"));
    for (const LayoutEstimate& one : report.layouts) {
      if (one.largest_batch == kMaxPlannedBatch) continue;
      const ModelShape shape = *with_formats(report.request.model.shape, format("bf16"), format("bf16"));
      const auto cut = layout_tensor_parallel(shape, one.tp_size);
      if (!cut.ok()) continue;
      const auto needs = [&](int64_t batch) {
        const RankBytes bytes =
            rank_bytes(shape, *cut, 0, report.request.max_step_tokens, batch, cuda_overhead(one.tp_size));
        return static_cast<double>(bytes.weights + bytes.beside_weights()) +
               static_cast<double>(batch * (4096 * bytes.kv_per_token + bytes.state_per_sequence)) / 0.9;
      };
      const auto has = static_cast<double>(one.memory_bytes);
      if (one.largest_batch > 0) {
        EXPECT_LE(needs(one.largest_batch), has + 1) << model << " " << one.tp_size;
      }
      EXPECT_GT(needs(one.largest_batch + 1), has - 2) << model << " " << one.tp_size;
    }
  }
}

TEST(PlannerTest, ABatchIsSharedOutAndMustFit) {
  PlanRequest request = request_for("Llama-3.1-8B", "H100-SXM");
  request.devices = {8};
  request.batch = 20;
  const PlanReport report = plan(request);
  const LayoutEstimate& replicas = layout(report, 8, 1);
  EXPECT_EQ(replicas.throughput.batch, 3);  // 20 over 8
  EXPECT_NEAR(replicas.throughput.total_tokens_per_s, replicas.throughput.user_tokens_per_s * 20, 1e-6);
  request.batch = 100000;
  const PlanReport refused = plan(request);
  EXPECT_THAT(layout(refused, 8, 1).refused, HasSubstr("12500 sequences of 4096 tokens need"));
  EXPECT_EQ(refused.best, -1);
}

TEST(PlannerTest, MillionTokensCostThePriceOfTheirSeconds) {
  PlanRequest request = request_for("Llama-3.1-8B", "H100-SXM");
  request.usd_per_device_hour = 3.6;
  const PlanReport report = plan(request);
  for (const LayoutEstimate& one : report.layouts) {
    const double seconds = 1e6 / one.throughput.total_tokens_per_s;
    EXPECT_NEAR(one.throughput.usd_per_million_tokens, seconds * 1e-3 * one.devices, 1e-9);
  }
}

TEST(PlannerTest, TheTargetChooses) {
  PlanRequest request = request_for("Llama-3.1-8B", "H100-SXM");
  request.target = PlanTarget::latency;
  const PlanReport fast = plan(request);
  request.target = PlanTarget::throughput;
  const PlanReport cheap = plan(request);
  const LayoutEstimate& fastest = fast.layouts[static_cast<size_t>(fast.best)];
  const LayoutEstimate& cheapest = cheap.layouts[static_cast<size_t>(cheap.best)];
  for (const LayoutEstimate& one : fast.layouts) {
    if (!one.refused.empty()) continue;
    EXPECT_LE(one.latency.user_tokens_per_s, fastest.latency.user_tokens_per_s);
    EXPECT_LE(one.throughput.total_tokens_per_s / one.devices,
              cheapest.throughput.total_tokens_per_s / cheapest.devices + 1e-9);
  }
  EXPECT_GT(fastest.tp_size, 1);
}

TEST(PlannerTest, EveryModelOnEveryDeviceGivesFiniteFigures) {
  const GpuTable gpus = testing::gpu_table();
  const ModelTable models = testing::model_table();
  const AllReduceTable all_reduce = testing::all_reduce_table();
  int fits = 0;
  for (const ModelSpec& model : models.models()) {
    for (const GpuSpec& gpu : gpus.gpus()) {
      for (const char* dtype : {"bf16", "f32", "fp8", "int4"}) {
        PlanRequest request = request_for("Llama-3.1-8B", "T4", dtype);
        request.model = model;
        request.gpu = gpu;
        request.context = std::min(512, model.max_context);
        const auto report = plan_deployment(request, all_reduce);
        ASSERT_TRUE(report.ok()) << report.status();
        for (const LayoutEstimate& one : report->layouts) {
          if (!one.refused.empty()) continue;
          ++fits;
          for (double figure : {one.latency.user_tokens_per_s, one.throughput.total_tokens_per_s,
                                one.prefill_tokens_per_s, one.ttft_ms}) {
            ASSERT_TRUE(std::isfinite(figure) && figure > 0)
                << model.shape.name << " " << gpu.name << " " << dtype;
          }
          ASSERT_TRUE(one.tp_size == 1 || one.all_reduce_us > 0);
          ASSERT_LE(one.bytes.weights, one.memory_bytes);
        }
      }
    }
  }
  EXPECT_GT(fits, 5000);
}

TEST(PlannerTest, DeviceListsMustRise) {
  PlanRequest request = request_for("Llama-3.1-8B", "T4");
  const auto with = [&](std::vector<int> devices) {
    request.devices = std::move(devices);
    return why_not(request);
  };
  EXPECT_THAT(with({}), HasSubstr("devices: got none"));
  EXPECT_THAT(with({0, 1}), HasSubstr("devices: got 0, wanted counts from 1"));
  EXPECT_THAT(with({2, 1}), HasSubstr("devices: got 1 after 2"));
  EXPECT_THAT(with({1, 2, 2}), HasSubstr("devices: got 2 after 2"));
  EXPECT_THAT(with({5000}), HasSubstr("devices: got 5000"));
  EXPECT_EQ(with({1, 3, 6}), "");
}

TEST(PlannerTest, AContextBeyondTheModelsIsAnError) {
  PlanRequest request = request_for("Llama-2-7B", "H100-SXM");
  request.context = 4097;
  EXPECT_THAT(why_not(request), HasSubstr("context: got 4097, wanted 1 to the model's 4096"));
  request.context = 100;
  request.prompt_tokens = 101;
  EXPECT_THAT(why_not(request), HasSubstr("prompt tokens: got 101"));
}

}  // namespace
}  // namespace trireme
