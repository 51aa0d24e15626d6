// How ranks become replicas.
#include "worker/job.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace trireme::worker {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

/// Ranks that are threads of this process.
class FakeWorld {
 public:
  explicit FakeWorld(int size) : size_(size), gathered_(static_cast<size_t>(size)) {}

  class Rank final : public HostGroup {
   public:
    Rank(FakeWorld& world, int rank) : world_(world), rank_(rank) {}
    int rank() const override { return rank_; }
    int size() const override { return world_.size_; }
    int local_rank() const override { return rank_; }
    int local_size() const override { return world_.size_; }
    absl::Status broadcast(std::vector<int32_t>& words, int root, milliseconds) override {
      world_.meet();
      if (rank_ == root) world_.words_ = words;
      world_.meet();
      words = world_.words_;
      return absl::OkStatus();
    }
    absl::StatusOr<std::vector<std::string>> gather(const std::string& bytes, int root,
                                                    milliseconds) override {
      world_.gathered_[static_cast<size_t>(rank_)] = bytes;
      world_.meet();
      return rank_ == root ? world_.gathered_ : std::vector<std::string>();
    }
    absl::Status barrier(milliseconds) override {
      world_.meet();
      return absl::OkStatus();
    }
    std::unique_ptr<HostGroup> split(int, int) override { return nullptr; }

   private:
    FakeWorld& world_;
    const int rank_;
  };

 private:
  void meet() {
    std::unique_lock lock(mutex_);
    const int round = round_;
    if (++arrived_ == size_) {
      arrived_ = 0;
      ++round_;
      met_.notify_all();
    } else {
      met_.wait_for(lock, seconds(20), [&] { return round_ != round; });
    }
  }

  const int size_;
  std::mutex mutex_;
  std::condition_variable met_;
  int arrived_ = 0, round_ = 0;
  std::vector<std::string> gathered_;
  std::vector<int32_t> words_;
};

v1::JoinJobRequest small_model(int wanted_tensor_parallel_size) {
  v1::JoinJobRequest request;
  request.set_job_id("job");
  request.set_wanted_tensor_parallel_size(wanted_tensor_parallel_size);
  v1::ModelInfo& model = *request.mutable_model();
  model.set_name("m");
  model.set_hidden_size(64);
  model.set_intermediate_size(128);
  model.set_num_layers(2);
  model.set_num_heads(8);
  model.set_num_kv_heads(4);
  model.set_head_dim(8);
  model.set_vocab_size(256);
  model.set_weight_dtype_bytes(4);
  model.set_kv_dtype_bytes(4);
  return request;
}

class JobTest : public testing::Test {
 protected:
  v1::RankReport& report(size_t rank) { return reports[rank]; }

  void make_reports(const std::vector<std::string>& hosts) {
    for (size_t rank = 0; rank < hosts.size(); ++rank) {
      v1::RankReport made;
      made.mutable_info()->set_rank(static_cast<int>(rank));
      made.mutable_info()->set_host(hosts[rank]);
      made.mutable_info()->set_device("cpu");
      made.mutable_info()->set_memory_bytes(int64_t{8} << 30);
      for (int cpu = 0; cpu < 8; ++cpu) made.add_cpus(cpu);
      made.set_config_hash("abc");
      reports.push_back(made);
    }
  }

  std::vector<absl::StatusOr<RankAssignment>> plan(const v1::JoinJobRequest& request,
                                                   const LayoutSource& source = plan_alone) {
    const auto size = static_cast<int>(reports.size());
    FakeWorld world(size);
    std::vector<absl::StatusOr<RankAssignment>> results(reports.size());
    std::vector<std::thread> threads;
    for (int rank = 0; rank < size; ++rank) {
      threads.emplace_back([&, rank] {
        FakeWorld::Rank group(world, rank);
        const auto place = static_cast<size_t>(rank);
        results[place] =
            plan_job(group, reports[place], rank == 0 ? request : v1::JoinJobRequest(), source, seconds(20));
      });
    }
    for (auto& thread : threads) thread.join();
    return results;
  }

  std::vector<v1::RankReport> reports;
};

TEST_F(JobTest, AloneIsOneReplicaWithTheWholeHost) {
  make_reports({"a"});
  const auto results = plan(small_model(0));
  ASSERT_TRUE(results[0].ok()) << results[0].status();
  EXPECT_EQ(results[0]->tp_size, 1);
  EXPECT_EQ(results[0]->replica_id, "job-0");
  EXPECT_EQ(results[0]->num_threads, 8);
  EXPECT_EQ(results[0]->local_ranks, 1);
}

TEST_F(JobTest, FourRanksBecomeTwoReplicasOfTwo) {
  make_reports({"a", "a", "a", "a"});
  const auto results = plan(small_model(2));
  for (int rank = 0; rank < 4; ++rank) {
    const auto& result = results[static_cast<size_t>(rank)];
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->tp_size, 2);
    EXPECT_EQ(result->replica_index, rank / 2);
    EXPECT_EQ(result->tp_rank, rank % 2);
    EXPECT_EQ(result->local_ranks, 4);
    EXPECT_EQ(result->num_threads, 2);
    ASSERT_EQ(result->ranks.size(), 2u);
    EXPECT_EQ(result->ranks[0].rank(), rank / 2 * 2);
    EXPECT_EQ(result->ranks[0].memory_bytes(), int64_t{2} << 30);
  }
}

TEST_F(JobTest, MemoryOfARanksOwnDeviceIsNotDivided) {
  make_reports({"a", "a"});
  for (v1::RankReport& made : reports) made.set_has_own_memory(true);
  for (const auto& result : plan(small_model(2))) {
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->ranks[0].memory_bytes(), int64_t{8} << 30);
    EXPECT_EQ(result->local_ranks, 2);
  }
}

TEST_F(JobTest, ErrorOfOneRankIsEveryRanksAndNamesIt) {
  make_reports({"a", "b"});
  report(1).set_error_code(static_cast<int>(absl::StatusCode::kNotFound));
  report(1).set_error_message("/models/x/config.json: no such file");
  for (const auto& result : plan(small_model(0))) {
    EXPECT_TRUE(absl::IsNotFound(result.status()));
    EXPECT_EQ(result.status().message(), "rank 1 on b: /models/x/config.json: no such file");
  }
}

TEST_F(JobTest, RanksWithDifferentModelsAreRefused) {
  make_reports({"a", "b"});
  report(1).set_config_hash("def");
  for (const auto& result : plan(small_model(0))) {
    EXPECT_TRUE(absl::IsFailedPrecondition(result.status()));
    EXPECT_NE(result.status().message().find("rank 1 on b"), std::string::npos) << result.status();
  }
}

TEST_F(JobTest, SizeThatCannotDivideIsRefusedOnEveryRank) {
  make_reports({"a", "a", "a"});
  for (const auto& result : plan(small_model(3))) {
    EXPECT_TRUE(absl::IsFailedPrecondition(result.status())) << result.status();
  }
}

TEST_F(JobTest, RefusalOfTheCoordinatorReachesEveryRank) {
  make_reports({"a", "a"});
  const auto refuse = [](const v1::JoinJobRequest&) -> absl::StatusOr<v1::JoinJobResponse> {
    return absl::UnavailableError("not reached");
  };
  for (const auto& result : plan(small_model(0), refuse)) {
    EXPECT_EQ(result.status(), absl::UnavailableError("not reached"));
  }
}

TEST_F(JobTest, LayoutThatUsesARankTwiceIsRefused) {
  make_reports({"a", "a"});
  const auto twice = [](const v1::JoinJobRequest&) -> absl::StatusOr<v1::JoinJobResponse> {
    v1::JoinJobResponse response;
    response.set_tensor_parallel_size(2);
    v1::ReplicaPlan* replica = response.add_replicas();
    replica->add_ranks(0);
    replica->add_ranks(0);
    return response;
  };
  for (const auto& result : plan(small_model(0), twice)) EXPECT_FALSE(result.ok());
}

TEST(ShareOfThreadsTest, SharedProcessorsAreDividedAndOwnOnesKept) {
  EXPECT_EQ(share_of_threads({{0, 1, 2, 3}}, 0), 4);
  EXPECT_EQ(share_of_threads({{0, 1, 2, 3}, {0, 1, 2, 3}}, 1), 2);
  EXPECT_EQ(share_of_threads({{0, 1}, {2, 3}}, 0), 2);
  EXPECT_EQ(share_of_threads({{0, 1, 2}, {0, 1, 2}, {0, 1, 2}}, 2), 1);
  EXPECT_EQ(share_of_threads({{0}, {0}, {0}}, 1), 1);  // never none
}

}  // namespace
}  // namespace trireme::worker
