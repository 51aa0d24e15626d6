#include "worker/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace trireme::worker {
namespace {

using std::chrono::milliseconds;

std::optional<ExitCode> parse(const std::vector<std::string>& flags, WorkerOptions& options) {
  std::vector<const char*> argv{"trireme-worker"};
  for (const std::string& flag : flags) argv.push_back(flag.c_str());
  return parse_options(static_cast<int>(argv.size()), argv.data(), /*quiet=*/false, options);
}

std::string refusal(const std::vector<std::string>& flags) {
  WorkerOptions options;
  testing::internal::CaptureStderr();
  const auto code = parse(flags, options);
  const std::string text = testing::internal::GetCapturedStderr();
  EXPECT_EQ(code, ExitCode::kUsage) << text;
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1) << text;
  return text;
}

TEST(OptionsTest, FlagsFillOptions) {
  WorkerOptions options;
  const auto code =
      parse({"--model", "/m", "--coordinator", "host:1", "--listen", "127.0.0.2:77", "--threads", "3",
             "--tensor-parallel", "4", "--kv-memory", "2GiB", "--step-timeout", "0.5", "--no-prefix-cache",
             "--compute-dtype", "bf16", "--collectives", "mpi"},
            options);
  ASSERT_FALSE(code.has_value());
  EXPECT_EQ(options.model_dir, "/m");
  EXPECT_EQ(options.coordinator, "host:1");
  EXPECT_EQ(options.listen.host, "127.0.0.2");
  EXPECT_EQ(options.listen.port, 77);
  EXPECT_EQ(options.num_threads, 3);
  EXPECT_EQ(options.tensor_parallel_size, 4);
  EXPECT_EQ(options.kv_memory_bytes, int64_t{2} << 30);
  EXPECT_EQ(options.step_timeout, milliseconds(500));
  EXPECT_FALSE(options.prefix_cache);
  EXPECT_EQ(options.compute_dtype, "bf16");
  EXPECT_EQ(options.collectives, "mpi");
}

TEST(OptionsTest, DefaultsStandWhereNothingIsSaid) {
  WorkerOptions options;
  ASSERT_FALSE(parse({"--model", "/m"}, options).has_value());
  EXPECT_EQ(options.listen.text(), "127.0.0.1:0");
  EXPECT_EQ(options.step_timeout, milliseconds(10000));
  EXPECT_EQ(options.coordinator_timeout, milliseconds(600'000));
  EXPECT_EQ(options.tensor_parallel_size, 0);
  EXPECT_TRUE(options.prefix_cache);
}

TEST(OptionsTest, MetricsAreOnALoopbackPortUnlessSwitchedOff) {
  WorkerOptions options;
  ASSERT_FALSE(parse({"--model", "/m"}, options).has_value());
  ASSERT_TRUE(options.metrics_listen.has_value());
  EXPECT_EQ(options.metrics_listen->text(), "127.0.0.1:0");
  ASSERT_FALSE(parse({"--model", "/m", "--metrics-listen", "127.0.0.3:9100"}, options).has_value());
  EXPECT_EQ(options.metrics_listen->text(), "127.0.0.3:9100");
  ASSERT_FALSE(parse({"--model", "/m", "--metrics-listen", "off"}, options).has_value());
  EXPECT_FALSE(options.metrics_listen.has_value());
}

TEST(OptionsTest, GpusAreCountedOnAHostOrNamedForEachRank) {
  WorkerOptions options;
  ASSERT_FALSE(parse({"--model", "/m"}, options).has_value());
  EXPECT_EQ(options.devices, std::vector<int>{0});
  ASSERT_FALSE(parse({"--model", "/m", "--device", "4"}, options).has_value());
  EXPECT_EQ(options.devices, std::vector<int>{4});
  ASSERT_FALSE(parse({"--model", "/m", "--device", "6,7,0"}, options).has_value());
  EXPECT_EQ(options.devices, (std::vector<int>{6, 7, 0}));
  EXPECT_NE(refusal({"--model", "/m", "--device", "1,-1"}).find("--device"), std::string::npos);
}

TEST(OptionsTest, DummyModelsNeedOnlyAConfig) {
  WorkerOptions options;
  EXPECT_FALSE(parse({"--load-format", "dummy", "--model-config", "c.json"}, options).has_value());
}

TEST(OptionsTest, EveryLimitOfARequestHasAFlag) {
  for (const RequestLimitOption& option : request_limit_options()) {
    WorkerOptions options;
    EXPECT_FALSE(parse({"--model", "/m", option.flag, std::to_string(option.least)}, options).has_value());
    EXPECT_EQ(options.request_limits.*option.limit, option.least) << option.flag;
    EXPECT_THAT(refusal({"--model", "/m", option.flag, std::to_string(option.most + 1)}),
                ::testing::HasSubstr(option.flag));
  }
}

TEST(OptionsTest, WrongFlagsAreNamedInOneLine) {
  EXPECT_NE(refusal({}).find("--model"), std::string::npos);
  EXPECT_NE(refusal({"--model", "/m", "--nonsense"}).find("--nonsense"), std::string::npos);
  EXPECT_NE(refusal({"--model", "/m", "--listen", "nowhere"}).find("nowhere"), std::string::npos);
  EXPECT_NE(refusal({"--model", "/m", "--tensor-parallel", "0"}).find("auto or 1 to 1024"),
            std::string::npos);
  EXPECT_NE(refusal({"--model", "/m", "--backend", "tpu"}).find("--backend"), std::string::npos);
  EXPECT_NE(refusal({"--model", "/m", "--coordinator", "host:0"}).find("--coordinator"), std::string::npos);
  EXPECT_NE(refusal({"--model", "/m", "--max-step-tokens", "8"}).find("--max-num-seqs"), std::string::npos);
  EXPECT_NE(refusal({"--model-config", "c.json"}).find("--load-format dummy"), std::string::npos);
  EXPECT_NE(refusal({"--model", "/m", "--trace-interval", "5"}).find("only with --trace"), std::string::npos);
  for (const char* seconds : {"-1", "nan", "inf", "1e7", "soon"})
    EXPECT_NE(refusal({"--model", "/m", "--step-timeout", seconds}).find("--step-timeout"),
              std::string::npos);
  EXPECT_NE(refusal({"--model", "/m", "--metrics-listen", "nowhere"}).find("--metrics-listen"),
            std::string::npos);
}

}  // namespace
}  // namespace trireme::worker
