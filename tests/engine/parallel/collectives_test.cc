// Runs alone and under mpirun with any number of ranks.

#include "engine/parallel/collectives.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <utility>
#include <vector>

#include "engine/parallel/agreement.h"
#include "tests/testing/mpi_main.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;
using testing::world;
constexpr std::chrono::milliseconds kDeadline{20'000};

std::unique_ptr<Backend> cpu() {
  CpuOptions options;
  options.num_threads = 1;
  return *create_cpu_backend(options);
}

std::string message(const absl::Status& status) { return std::string(status.message()); }

TEST(CollectivesTest, AutoIsNcclOnlyOnADeviceInABuildThatHasIt) {
  EXPECT_EQ(*choose_collectives("auto", "cuda", true, false), "nccl");
  EXPECT_EQ(*choose_collectives("auto", "cuda", false, false), "mpi");
  EXPECT_EQ(*choose_collectives("auto", "cpu", true, false), "mpi");
  EXPECT_EQ(*choose_collectives("mpi", "cuda", true, false), "mpi");
  EXPECT_EQ(*choose_collectives("nccl", "cuda", true, false), "nccl");
}

TEST(CollectivesTest, AWishThatCannotBeHadIsRefusedWithTheReason) {
  const auto odd = choose_collectives("gloo", "cuda", true, false);
  EXPECT_EQ(odd.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(message(odd.status()), HasSubstr("got 'gloo', wanted auto, nccl or mpi"));
  const auto on_cpu = choose_collectives("nccl", "cpu", true, false);
  EXPECT_EQ(on_cpu.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(message(on_cpu.status()), HasSubstr("the backend is cpu"));
  const auto unbuilt = choose_collectives("nccl", "cuda", false, false);
  EXPECT_EQ(unbuilt.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(message(unbuilt.status()), HasSubstr("TRIREME_NCCL"));
}

TEST(CollectivesTest, RanksThatShareADeviceGoOverMpi) {
  EXPECT_EQ(*choose_collectives("auto", "cuda", true, true), "mpi");
  EXPECT_EQ(*choose_collectives("mpi", "cuda", true, true), "mpi");
  const auto refused = choose_collectives("nccl", "cuda", true, true);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(message(refused.status()), HasSubstr("ranks share a GPU"));
}

TEST(CollectivesTest, OnTheCpuTheGroupIsThatOfMpi) {
  const auto backend = cpu();
  const auto group = create_process_group("auto", world(), *backend, false, kDeadline);
  ASSERT_TRUE(group.ok()) << group.status();
  EXPECT_EQ((*group)->name(), world().size() == 1 ? "single" : "mpi");
  EXPECT_EQ((*group)->size(), world().size());
  const auto refused = create_process_group("nccl", world(), *backend, false, kDeadline);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(CollectivesTest, TheWaysOfAllReducesAreToldBySize) {
  const auto group = create_mpi_process_group(world());
  EXPECT_EQ(describe_all_reduce(*group),
            world().size() == 1 ? "none" : "exchange of everything up to 64 KiB, exchange of halves above");
}

TEST(AgreementTest, WhatOneRankSaysIsEveryRanksAny) {
  const int last = world().size() - 1;
  EXPECT_TRUE(*agree_on_any(world(), world().rank() == last, kDeadline));
  EXPECT_FALSE(*agree_on_any(world(), false, kDeadline));
}

TEST(NcclRanksTest, AGpuForEachRankAndOneVersionAreFine) {
  EXPECT_TRUE(check_nccl_ranks({{"a", "0000:01:00.0", 22809}, {"a", "0000:02:00.0", 22809}}).ok());
  EXPECT_TRUE(check_nccl_ranks({{"a", "0000:01:00.0", 22809}, {"b", "0000:01:00.0", 22809}}).ok());
}

TEST(NcclRanksTest, RanksOnOneGpuAreNamed) {
  const absl::Status status = check_nccl_ranks(
      {{"a", "0000:01:00.0", 22809}, {"b", "0000:02:00.0", 22809}, {"b", "0000:02:00.0", 22809}});
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(message(status), HasSubstr("ranks 1 and 2 are both on GPU 0000:02:00.0 of host b"));
  EXPECT_THAT(message(status), HasSubstr("--collectives mpi"));
}

TEST(NcclRanksTest, VersionsThatDifferAreNamed) {
  const absl::Status status = check_nccl_ranks({{"a", "0000:01:00.0", 22809}, {"b", "0000:01:00.0", 22605}});
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(message(status), HasSubstr("rank 1 on host b has version 2.26.5"));
  EXPECT_THAT(message(status), HasSubstr("rank 0 on host a has 2.28.9"));
}

TEST(NcclRanksTest, EveryRankHearsTheSameVerdict) {
  const std::string own = "0000:0" + std::to_string(world().rank()) + ":00.0";
  EXPECT_TRUE(agree_on_nccl(world(), {"host", own, 22809}, kDeadline).ok());
  const absl::Status shared = agree_on_nccl(world(), {"host", "0000:00:00.0", 22809}, kDeadline);
  EXPECT_EQ(shared.ok(), world().size() == 1);
  if (world().size() == 1) return;
  EXPECT_THAT(message(shared), HasSubstr("ranks 0 and 1 are both on GPU 0000:00:00.0"));
}

/// Refuses tensors in a device's memory, as MPI would crash on them.
class HostOnlyGroup final : public ProcessGroup {
 public:
  HostOnlyGroup(std::unique_ptr<ProcessGroup> group, const std::vector<const Buffer*>& device)
      : group_(std::move(group)), device_(device) {}
  int rank() const override { return group_->rank(); }
  int size() const override { return group_->size(); }
  std::string name() const override { return group_->name(); }
  std::string all_reduce_algorithm(int64_t bytes) const override {
    return group_->all_reduce_algorithm(bytes);
  }
  void all_reduce_sum(const Tensor& tensor) override {
    expect_host(tensor);
    group_->all_reduce_sum(tensor);
  }
  void gather_cols(const Tensor& part, const Tensor& whole) override {
    expect_host(part);
    if (rank() == 0) expect_host(whole);
    group_->gather_cols(part, whole);
  }
  void broadcast(const Tensor& tensor) override {
    expect_host(tensor);
    group_->broadcast(tensor);
  }

 private:
  void expect_host(const Tensor& tensor) const {
    for (const Buffer* buffer : device_) {
      const char* begin = static_cast<const char*>(buffer->data());
      EXPECT_FALSE(tensor.data >= begin && tensor.data < begin + buffer->bytes());
    }
  }
  std::unique_ptr<ProcessGroup> group_;
  std::vector<const Buffer*> device_;
};

/// Tensors in a buffer that stands for a device's memory: the CPU backend reaches it, the group below may
/// not.
class StagedGroupTest : public ::testing::Test {
 protected:
  std::unique_ptr<Backend> backend_ = cpu();
  Buffer device_ = *backend_->allocate(1 << 20);
  std::unique_ptr<ProcessGroup> plain_ = create_mpi_process_group(world());
  std::unique_ptr<ProcessGroup> staged_ =
      create_staged_process_group(std::make_unique<HostOnlyGroup>(create_mpi_process_group(world()),
                                                                  std::vector<const Buffer*>{&device_}),
                                  *backend_);

  static std::vector<float> contribution(int64_t count, int rank) {
    std::vector<float> values(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i)
      values[static_cast<size_t>(i)] = 1.0f / static_cast<float>(1 + (i * 7 + rank * 13) % 101);
    return values;
  }
  Tensor upload(const std::vector<float>& values, int64_t rows) {
    const Tensor tensor(device_.data(), DType::f32, rows, static_cast<int64_t>(values.size()) / rows);
    backend_->copy_to_device(tensor.data, values.data(), tensor.bytes());
    return tensor;
  }
};

TEST_F(StagedGroupTest, SumsHaveTheBitsOfTheGroupBelow) {
  for (const int64_t count : {int64_t{1}, int64_t{33}, int64_t{50'000}, int64_t{17}}) {
    std::vector<float> expected = contribution(count, world().rank());
    const Tensor tensor = upload(expected, 1);
    plain_->all_reduce_sum(Tensor(expected.data(), DType::f32, 1, count));
    staged_->all_reduce_sum(tensor);
    backend_->synchronize();
    EXPECT_EQ(std::memcmp(tensor.data, expected.data(), tensor.bytes()), 0) << count;
  }
}

TEST_F(StagedGroupTest, ColumnsAreGatheredAlsoIntoRowsThatAreApart) {
  const int64_t rows = 3, cols = 5, all = cols * world().size();
  for (const int64_t gap : {0, 2}) {
    const Tensor part = upload(contribution(rows * cols, world().rank()), rows);
    const Tensor whole(static_cast<char*>(device_.data()) + 4096, DType::f32, rows, all, all + gap);
    for (int64_t i = 0; i < rows * (all + gap); ++i) whole.as<float>()[i] = -1;
    staged_->gather_cols(part, whole);
    backend_->synchronize();
    if (world().rank() != 0) continue;
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t col = 0; col < all + gap; ++col) {
        const float expected =
            col < all
                ? contribution(rows * cols,
                               static_cast<int>(col / cols))[static_cast<size_t>(row * cols + col % cols)]
                : -1;
        ASSERT_EQ(whole.as<float>()[row * whole.row_stride + col], expected) << row << ' ' << col;
      }
    }
  }
}

TEST_F(StagedGroupTest, BroadcastTakesTheBytesOfRankZero) {
  const Tensor tensor = upload(contribution(999, world().rank()), 1);
  staged_->broadcast(tensor);
  backend_->synchronize();
  EXPECT_EQ(std::memcmp(tensor.data, contribution(999, 0).data(), tensor.bytes()), 0);
}

TEST_F(StagedGroupTest, ItsNameSaysThatItIsStaged) {
  EXPECT_THAT(staged_->name(), HasSubstr("staged over host memory"));
  EXPECT_EQ(staged_->size(), world().size());
}

}  // namespace
}  // namespace trireme
