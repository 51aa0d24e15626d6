// Runs alone and under mpirun with several ranks.

#include "launch/client/collective_bench.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "launch/client/collective_input.h"
#include "launch/client/collective_report.h"
#include "tests/testing/mpi_main.h"

namespace trireme::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using trireme::testing::world;

std::unique_ptr<Backend> backend() {
  CpuOptions options;
  options.num_threads = 1;
  return *create_cpu_backend(options);
}

CollectiveBenchOptions quick_options() {
  CollectiveBenchOptions options;
  options.operations = {CollectiveOp::all_reduce, CollectiveOp::gather, CollectiveOp::broadcast};
  options.sizes = {4, 4096, 100'000, 2 << 20};
  options.warmup = 1;
  options.iterations = 2;
  options.samples = 3;
  options.seed = 17;
  return options;
}

/// A group that returns one wrong element on its last rank.
class WrongGroup final : public ProcessGroup {
 public:
  explicit WrongGroup(std::unique_ptr<ProcessGroup> group) : group_(std::move(group)) {}
  int rank() const override { return group_->rank(); }
  int size() const override { return group_->size(); }
  std::string name() const override { return group_->name(); }
  std::string all_reduce_algorithm(int64_t bytes) const override {
    return group_->all_reduce_algorithm(bytes);
  }
  void all_reduce_sum(const Tensor& tensor) override {
    group_->all_reduce_sum(tensor);
    spoil(tensor);
  }
  void gather_cols(const Tensor& part, const Tensor& whole) override {
    group_->gather_cols(part, whole);
    if (rank() == 0) whole.as<float>()[whole.cols - 1] += 0.001f;
  }
  void broadcast(const Tensor& tensor) override {
    group_->broadcast(tensor);
    spoil(tensor);
  }

 private:
  void spoil(const Tensor& tensor) const {
    if (rank() == size() - 1) tensor.as<float>()[tensor.cols / 2] += 0.001f;
  }
  std::unique_ptr<ProcessGroup> group_;
};

CollectiveBenchReport measured(ProcessGroup& group, const CollectiveBenchOptions& options) {
  const auto device = backend();
  auto report = run_collective_bench(options, world(), group, *device);
  EXPECT_TRUE(report.ok()) << report.status();
  return *std::move(report);
}

TEST(CollectiveBenchTest, EverySizeIsMeasuredAndRight) {
  const auto group = create_mpi_process_group(world());
  const CollectiveBenchReport report = measured(*group, quick_options());
  ASSERT_EQ(report.operations.size(), 3u);
  if (world().rank() != 0) return;
  EXPECT_EQ(report.ranks, world().size());
  EXPECT_EQ(report.group, world().size() == 1 ? "single" : "mpi");
  EXPECT_EQ(report.placement.num_hosts, 1);
  EXPECT_EQ(report.placement.oversubscribed, world().size() > report.placement.num_cores);
  EXPECT_TRUE(report.all_right());
  for (const CollectiveReport& operation : report.operations) {
    ASSERT_EQ(operation.sizes.size(), 4u);
    EXPECT_GT(operation.latency_us, 0);
    for (const CollectiveFigures& size : operation.sizes) {
      EXPECT_EQ(size.samples_us.size(), 3u);
      EXPECT_EQ(size.time_us, size.samples_us[1]);
      EXPECT_LE(size.samples_us[0], size.samples_us[2]);
      EXPECT_NEAR(size.algbw_gb_s * size.time_us * 1e3, static_cast<double>(size.bytes), 1e-3);
      EXPECT_DOUBLE_EQ(size.busbw_gb_s, size.algbw_gb_s * operation.busbw_factor);
      EXPECT_EQ(size.wrong, 0);
    }
    // The parts of a gather are equal.
    const int64_t unit = operation.op == CollectiveOp::gather ? 4 * world().size() : 4;
    EXPECT_EQ(operation.sizes[2].bytes, (100'000 + unit - 1) / unit * unit);
  }
}

TEST(CollectiveBenchTest, AWrongElementIsFoundInEveryOperationAndSize) {
  WrongGroup group(create_mpi_process_group(world()));
  const CollectiveBenchReport report = measured(group, quick_options());
  if (world().rank() != 0) return;
  EXPECT_FALSE(report.all_right());
  for (const CollectiveReport& operation : report.operations) {
    for (const CollectiveFigures& size : operation.sizes) EXPECT_GE(size.wrong, 1) << size.bytes;
    const bool one_result = operation.op == CollectiveOp::gather || world().size() == 1;
    EXPECT_EQ(operation.sizes.back().same_on_all_ranks, one_result);
  }
}

TEST(CollectiveBenchTest, TheReportSaysEverythingToProgramsAndPeople) {
  const auto group = create_mpi_process_group(world());
  CollectiveBenchOptions options = quick_options();
  options.sizes = {4096, 1 << 20};
  const CollectiveBenchReport report = measured(*group, options);
  if (world().rank() != 0) return;
  const nlohmann::json json = to_json(report);
  EXPECT_EQ(json["schema"], "trireme.collectives.1");
  EXPECT_EQ(json["num_ranks"], world().size());
  EXPECT_EQ(json["seed"], 17);
  ASSERT_EQ(json["operations"].size(), 3u);
  const nlohmann::json& first = json["operations"][0];
  EXPECT_EQ(first["op"], "all_reduce");
  ASSERT_EQ(first["sizes"].size(), 2u);
  EXPECT_EQ(first["sizes"][0]["algorithm"], group->all_reduce_algorithm(4096));
  EXPECT_EQ(first["sizes"][1]["bytes"], 1 << 20);
  EXPECT_EQ(first["sizes"][1]["num_wrong"], 0);
  EXPECT_EQ(first["sizes"][1]["samples_us"].size(), 3u);
  EXPECT_EQ(first["fit"].is_null(), !report.operations[0].fit.ok());
  const std::string text = to_text(report);
  EXPECT_THAT(text, HasSubstr("all_reduce: busbw = algbw * "));
  EXPECT_THAT(text, HasSubstr("     1048576 "));
  EXPECT_EQ(text.find("no fit: one rank exchanges nothing") != std::string::npos, world().size() == 1);
  EXPECT_EQ(text.find("OVERSUBSCRIBED") != std::string::npos, report.placement.oversubscribed);
}

TEST(CollectiveInputTest, NumbersDifferByRankIndexCallAndSeed) {
  const CollectiveInput input{1, 1};
  EXPECT_EQ(input.value(0, 0), (CollectiveInput{1, 1}.value(0, 0)));
  EXPECT_NE(input.value(0, 0), input.value(1, 0));
  EXPECT_NE(input.value(0, 0), input.value(0, 1));
  EXPECT_NE(input.value(0, 0), (CollectiveInput{1, 2}.value(0, 0)));
  EXPECT_NE(input.value(0, 0), (CollectiveInput{2, 1}.value(0, 0)));
  double sum = 0, least = 1, most = -1;
  for (int i = 0; i < 10'000; ++i) {
    const double value = input.value(2, i);
    sum += value;
    least = std::min(least, value);
    most = std::max(most, value);
  }
  EXPECT_LT(std::abs(sum), 200);
  EXPECT_GE(least, -1);
  EXPECT_LT(least, -0.99);
  EXPECT_LT(most, 1);
  EXPECT_GT(most, 0.99);
}

TEST(CollectiveInputTest, ASumIsRightInAnyOrderAndWrongWithOneAddendMissing) {
  const CollectiveInput input{3, 1};
  const int ranks = 8;
  for (int64_t index = 0; index < 1000; ++index) {
    float up = 0, down = 0;
    for (int rank = 0; rank < ranks; ++rank) up += input.value(rank, index);
    for (int rank = ranks - 1; rank >= 0; --rank) down += input.value(rank, index);
    ASSERT_TRUE(input.is_sum(ranks, index, up));
    ASSERT_TRUE(input.is_sum(ranks, index, down));
    ASSERT_FALSE(input.is_sum(ranks, index, up + 0.0001f));
    ASSERT_FALSE(input.is_sum(ranks, index, std::nanf("")));
  }
}

}  // namespace
}  // namespace trireme::client
