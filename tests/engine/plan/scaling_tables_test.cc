#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "engine/plan/nearest_name.h"
#include "tests/engine/plan/tables.h"

namespace trireme {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(NearestNameTest, CountsLettersCaseAndSignsAside) {
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3);
  EXPECT_EQ(edit_distance("", "abc"), 3);
  EXPECT_EQ(edit_distance("RTX 3090", "rtx-3090"), 0);
  EXPECT_EQ(edit_distance("flaw", "lawn"), 2);
}

TEST(NearestNameTest, PutsWhatIsContainedFirst) {
  const std::vector<std::string> names = {"H200", "H100-SXM", "A100-80", "H100-PCIe"};
  EXPECT_THAT(nearest_names("h100", names, 2), ElementsAre("H100-SXM", "H100-PCIe"));
  EXPECT_THAT(nearest_names("H2OO", names, 1), ElementsAre("H200"));
  EXPECT_EQ(nearest_names("", names, 9).size(), 4u);
}

TEST(GpuTableTest, HoldsDevicesFromLaptopsToB200) {
  const GpuTable table = testing::gpu_table();
  EXPECT_GE(table.gpus().size(), 20u);
  const auto h100 = table.find("h100_sxm");
  ASSERT_TRUE(h100.ok()) << h100.status();
  EXPECT_EQ(h100->memory_gb_s, 3350);
  EXPECT_EQ(h100->bf16_tflops, 989);
  EXPECT_EQ(h100->num_multiprocessors, 132);
  EXPECT_EQ(h100->usable_bytes(), static_cast<int64_t>(80.0 * (1 << 30) * 0.98));
  for (const char* name : {"RTX 3060 laptop", "RTX 3090", "B200", "MI300X"})
    EXPECT_TRUE(table.find(name).ok());
  for (const GpuSpec& gpu : table.gpus()) {
    EXPECT_FALSE(gpu.source.empty()) << gpu.name;
    EXPECT_THAT(gpu.source, ::testing::Not(HasSubstr(" id "))) << gpu.name;
  }
}

TEST(GpuTableTest, DamagedTablesGiveStatusesNotCrashes) {
  const auto text = read_table_file(testing::scaling_file("gpus.csv"));
  ASSERT_TRUE(text.ok()) << text.status();
  std::mt19937 random(11);
  const auto pick = [&](size_t limit) { return std::uniform_int_distribution<size_t>(0, limit - 1)(random); };
  int refused = 0;
  for (int i = 0; i < 1000; ++i) {
    std::string damaged = text->substr(0, 1 + pick(text->size()));
    for (size_t n = pick(6); n > 0; --n) {
      const std::string bytes = std::string("\",\n\r#-x9e. ") + '\0' + '\xff';
      damaged[pick(damaged.size())] = bytes[pick(bytes.size())];
    }
    GpuTable table;
    const absl::Status added = table.add(damaged, "damaged.csv");
    if (added.ok()) continue;
    ++refused;
    EXPECT_EQ(added.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(added.message()), ::testing::StartsWith("damaged.csv:"));
  }
  EXPECT_GT(refused, 100);
}

TEST(GpuTableTest, AnUnknownDeviceGetsTheNearestNames) {
  const auto found = testing::gpu_table().find("H100SMX");
  EXPECT_EQ(found.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(found.status().message()), HasSubstr("nearest are H100-SXM"));
}

TEST(GpuTableTest, UserRowsAddAndReplace) {
  GpuTable table = testing::gpu_table();
  const size_t before = table.gpus().size();
  ASSERT_TRUE(
      table.add("name,memory_gib,memory_bandwidth_gb_s,fp32_tflops\nT4,16,300,8\nMine,12,500,20\n", "u.csv")
          .ok());
  EXPECT_EQ(table.gpus().size(), before + 1);
  EXPECT_EQ(table.find("T4")->memory_gb_s, 300);
  EXPECT_EQ(table.find("mine")->f32_tflops, 20);
  const auto fault = [&](const std::string& rows) {
    GpuTable copy = table;
    return std::string(
        copy.add("name,memory_gib,memory_bandwidth_gb_s,fp32_tflops\n" + rows, "u.csv").message());
  };
  EXPECT_THAT(fault("A,-3,500,1\n"), HasSubstr("u.csv:2: column memory_gib: got '-3'"));
  EXPECT_THAT(fault("A,8,500,1\nB,8,fast,1\n"),
              HasSubstr("u.csv:3: column memory_bandwidth_gb_s: got 'fast'"));
  EXPECT_THAT(fault("A,8,500,\n"), HasSubstr("column fp32_tflops"));
  EXPECT_THAT(fault("A,8,500,1\nA,9,500,1\n"), HasSubstr("u.csv:3: column name: got 'A' again"));
}

TEST(GpuTableTest, AMixedInventoryIsAsItsWeakest) {
  const GpuTable table = testing::gpu_table();
  const auto hosts = parse_inventory("host,gpu,devices\na,H100-SXM,8\nb,A100-80,4\n", "i.csv", table);
  ASSERT_TRUE(hosts.ok()) << hosts.status();
  const GpuSpec least = weakest_of((*hosts)[0].gpu, (*hosts)[1].gpu);
  EXPECT_EQ(least.memory_gb_s, 2000);
  EXPECT_EQ(least.fp8_tflops, 0);
  EXPECT_EQ(least.nvlink_gb_s, 300);
  EXPECT_EQ(least.usd_per_hour, 3.99);
  EXPECT_EQ(least.name, "H100-SXM + A100-80");
  EXPECT_THAT(std::string(parse_inventory("host,gpu,devices\na,H300,8\n", "i.csv", table).status().message()),
              HasSubstr("i.csv:2: column gpu: GPU 'H300' is not in the table; nearest are"));
  EXPECT_THAT(std::string(parse_inventory("host,gpu,devices\na,H200,0\n", "i.csv", table).status().message()),
              HasSubstr("i.csv:2: column devices: got '0'"));
  EXPECT_FALSE(parse_inventory("host,gpu,devices\na,H200,1\na,H200,1\n", "i.csv", table).ok());
}

TEST(ModelTableTest, ShapesGiveThePublishedNumberOfParameters) {
  const ModelTable table = testing::model_table();
  EXPECT_GE(table.models().size(), 20u);
  for (const ModelSpec& model : table.models()) {
    EXPECT_NEAR(count_parameters(model.shape) / model.parameters, 1, 0.005) << model.shape.name;
  }
  // 80 layers of 8192 x (8192 + 2 x 1024) + 8192 x 8192 + 3 x 8192 x 28672 and two norms, a norm, two tables.
  EXPECT_EQ(count_parameters(table.find("Llama-3.1-70B")->shape), 70553706496.0);
}

TEST(ModelTableTest, FaultsAreNamed) {
  const std::string header =
      "name,layers,hidden,intermediate,heads,kv_heads,head_dim,vocab,context,experts,experts_per_token\n";
  const auto fault = [&](const std::string& row) {
    ModelTable table;
    return std::string(table.add(header + row, "m.csv").message());
  };
  EXPECT_EQ(fault("m,2,64,128,8,4,16,1000,512,,\n"), "");
  EXPECT_THAT(fault("m,2,64,128,8,3,16,1000,512,,\n"), HasSubstr("m.csv:2: column kv_heads: got 3"));
  EXPECT_THAT(fault("m,0,64,128,8,4,16,1000,512,,\n"), HasSubstr("m.csv:2: column layers: got '0'"));
  EXPECT_THAT(fault("m,2,64,128,8,4,16,1000,512,4,5\n"), HasSubstr("column experts_per_token"));
  EXPECT_THAT(std::string(testing::model_table().find("Llama3.1-70").status().message()),
              HasSubstr("Llama-3.1-70B"));
}

TEST(ModelTableTest, QuantizedLayersLeaveEmbeddingAndHeadIn16Bits) {
  const ModelShape plain = testing::model_table().find("Llama-3.1-70B")->shape;
  const auto bytes = [&](const char* dtype) {
    const auto shape = with_formats(plain, *parse_number_format(dtype, "--dtype"),
                                    *parse_number_format("fp8", "--kv-dtype"));
    return rank_bytes(*shape, *layout_tensor_parallel(*shape, 1), 0, 1, 1);
  };
  const double layers = 80.0 * (8192.0 * 10240 + 8192.0 * 8192 + 3 * 8192.0 * 28672),
               tables = 2 * 128256.0 * 8192;
  const double norms = 4 * 161.0 * 8192;
  EXPECT_EQ(static_cast<double>(bytes("bf16").weights), 2 * (layers + tables) + norms);
  EXPECT_EQ(static_cast<double>(bytes("fp8").weights), layers + 2 * tables + norms);
  EXPECT_EQ(static_cast<double>(bytes("int4").weights), layers / 2 + layers / 128 * 2 + 2 * tables + norms);
  EXPECT_EQ(static_cast<double>(bytes("f32").weights), 4 * (layers + tables) + norms);
  EXPECT_EQ(bytes("fp8").kv_per_token, 2 * 80 * 8 * 128);
  EXPECT_FALSE(with_formats(plain, *parse_number_format("bf16", ""), *parse_number_format("int4", "")).ok());
  EXPECT_THAT(std::string(parse_number_format("fp16", "--dtype").status().message()),
              HasSubstr("--dtype: got 'fp16', wanted bf16, f16, f32, fp8, int8, int4"));
}

TEST(AllReduceTableTest, PublishedPointsAreMetAndJoinedByLines) {
  const AllReduceTable table = testing::all_reduce_table();
  const GpuSpec h100 = *testing::gpu_table().find("H100-SXM");
  const AllReduceCost nccl = table.cost(h100, 8, 8, AllReduceChoice::nccl);
  EXPECT_NEAR(nccl.seconds(1 << 20), 24e-6, 1e-12);
  EXPECT_NEAR(nccl.seconds(1.5 * (1 << 20)), (24e-6 + 35e-6) / 2, 1e-12);
  EXPECT_NEAR(nccl.seconds(1), 15.2e-6, 1e-12);
  EXPECT_NEAR(nccl.seconds(192e6 * 1.048576), 597e-6 + 270e-6, 2e-6);  // 192 MiB: the last slope goes on
  const AllReduceCost best = table.cost(h100, 8, 8, AllReduceChoice::best);
  EXPECT_NEAR(best.seconds(1 << 20), 16.7e-6, 1e-12);
  EXPECT_NEAR(best.seconds(1 << 25), 203e-6, 1e-12);
  EXPECT_EQ(table.cost(h100, 1, 8, AllReduceChoice::nccl).seconds(1 << 20), 0);
}

TEST(AllReduceTableTest, OtherLinksAreLatencyAndBandwidth) {
  const AllReduceTable table = testing::all_reduce_table();
  const GpuTable gpus = testing::gpu_table();
  // 6.6 us and 2 x 3 hops of 0.6; 300 GB/s x 0.8 over 2 x 3 / 4.
  const AllReduceCost a100 = table.cost(*gpus.find("A100-80"), 4, 8, AllReduceChoice::nccl);
  EXPECT_NEAR(a100.seconds(0), 10.2e-6, 1e-12);
  EXPECT_NEAR(a100.seconds(160e6), 10.2e-6 + 1e-3, 1e-12);
  // PCIe 4: 31.5 GB/s x 0.4, one move there and back for two.
  const AllReduceCost pcie = table.cost(*gpus.find("RTX 3090"), 2, 8, AllReduceChoice::best);
  EXPECT_NEAR(pcie.seconds(12.6e6), 8.6e-6 + 1e-3, 1e-12);
  EXPECT_THAT(table.cost(*gpus.find("H200"), 16, 8, AllReduceChoice::nccl).origin(),
              HasSubstr("across hosts"));
  AllReduceTable unordered;
  EXPECT_THAT(
      std::string(unordered.add("link,ranks,algorithm,bytes,microseconds\nx,2,a,8,1\nx,2,a,8,2\n", "r.csv")
                      .message()),
      HasSubstr("r.csv:3: column bytes"));
}

}  // namespace
}  // namespace trireme
