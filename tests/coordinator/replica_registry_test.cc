#include "coordinator/replica_registry.h"

#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace trireme {
namespace {

using ::testing::HasSubstr;

ReplicaDescription replica(const std::string& id, const std::string& incarnation = "i1") {
  return {id, incarnation, {"demo", "c0ffee", "70ce", "f32"}, 1000, 256};
}

LeaseId serve(ReplicaRegistry& registry, const ReplicaDescription& description) {
  const auto lease = registry.admit(description);
  EXPECT_TRUE(lease.ok()) << lease.status();
  registry.activate(*lease);
  return *lease;
}

void expect_refused(const absl::Status& status, const std::vector<std::string>& words) {
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  for (const std::string& word : words) EXPECT_THAT(std::string(status.message()), HasSubstr(word));
}

TEST(ReplicaRegistryTest, NoRequestsBeforeActivation) {
  ReplicaRegistry registry;
  EXPECT_EQ(registry.acquire(), std::nullopt);
  const LeaseId lease = *registry.admit(replica("a"));
  EXPECT_TRUE(registry.is_live(lease));
  EXPECT_EQ(registry.num_serving(), 0);
  EXPECT_EQ(registry.acquire(), std::nullopt);
  registry.activate(lease);
  EXPECT_EQ(registry.num_serving(), 1);
  EXPECT_EQ(registry.acquire(), lease);
}

TEST(ReplicaRegistryTest, RequestsGoWhereLeastIs) {
  ReplicaRegistry registry;
  const LeaseId a = serve(registry, replica("a"));
  const LeaseId b = serve(registry, replica("b"));
  registry.report(a, 3);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(registry.acquire(), b);
  registry.report(a, 0);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(registry.acquire(), a);
  for (int i = 0; i < 3; ++i) registry.release(b);
  EXPECT_EQ(registry.acquire(), b);
  registry.report(b, -1000);  // a replica cannot pull in everything
  registry.release(a);
  registry.release(a);
  registry.release(a);
  EXPECT_EQ(registry.acquire(), a);
}

TEST(ReplicaRegistryTest, DrainingTakesNothingNewAndStaysLive) {
  ReplicaRegistry registry;
  const LeaseId a = serve(registry, replica("a"));
  EXPECT_EQ(registry.acquire(), a);
  registry.drain(a);
  registry.activate(a);  // a late activation does not undo it
  EXPECT_EQ(registry.acquire(), std::nullopt);
  EXPECT_TRUE(registry.is_live(a));
  EXPECT_EQ(registry.snapshot().at(0).outstanding, 1);
  EXPECT_EQ(registry.model_name(), "demo");
}

TEST(ReplicaRegistryTest, EndedLeaseIsGone) {
  ReplicaRegistry registry;
  const LeaseId a = serve(registry, replica("a"));
  registry.end(a);
  registry.end(a);
  registry.release(a);
  registry.report(a, 1);
  registry.drain(a);
  registry.activate(a);
  EXPECT_FALSE(registry.is_live(a));
  EXPECT_EQ(registry.acquire(), std::nullopt);
  EXPECT_EQ(registry.model_name(), "");
  EXPECT_NE(serve(registry, replica("a")), a);
}

TEST(ReplicaRegistryTest, ReplicasAgreeOnTheModel) {
  ReplicaRegistry registry;
  EXPECT_TRUE(registry.check_model({"anything", "1", "2", "bf16"}).ok());
  const LeaseId a = serve(registry, replica("a"));
  EXPECT_TRUE(registry.check_model(replica("b").model).ok());
  ReplicaDescription other = replica("b");
  other.model.name = "large";
  expect_refused(registry.admit(other).status(), {"model", "demo", "large"});
  other = replica("b");
  other.model.config_hash = "beef";
  expect_refused(registry.admit(other).status(), {"config hash", "c0ffee", "beef"});
  other = replica("b");
  other.model.tokenizer_hash = "beef";
  expect_refused(registry.admit(other).status(), {"tokenizer hash", "70ce", "beef"});
  other = replica("b");
  other.model.compute_dtype = "bf16";
  expect_refused(registry.check_model(other.model), {"compute dtype", "f32", "bf16"});
  registry.end(a);
  EXPECT_TRUE(registry.admit(other).ok());  // nobody is left to disagree with
}

TEST(ReplicaRegistryTest, LiveReplicaIdIsNotTakenOver) {
  ReplicaRegistry registry;
  const LeaseId a = serve(registry, replica("a", "i1"));
  expect_refused(registry.admit(replica("a", "i2")).status(), {"a is live", "i1", "i2"});
  EXPECT_EQ(registry.acquire(), a);
}

TEST(ReplicaRegistryTest, ReplacedIncarnationIsFenced) {
  ReplicaRegistry registry;
  registry.end(serve(registry, replica("a", "i1")));
  registry.end(serve(registry, replica("a", "i1")));  // the same one may come back after a lost connection
  registry.end(serve(registry, replica("a", "i2")));
  expect_refused(registry.admit(replica("a", "i1")).status(), {"i1 was replaced by i2"});
  EXPECT_TRUE(registry.admit(replica("b", "i1")).ok());  // another replica's name for itself
  EXPECT_TRUE(registry.admit(replica("a", "i2")).ok());
}

TEST(ReplicaRegistryTest, LimitsAreWhatEveryReplicaKeeps) {
  ReplicaRegistry registry;
  EXPECT_EQ(registry.limits().max_context_len, 0);
  serve(registry, replica("a"));
  ReplicaDescription small = replica("b");
  small.max_context_len = 64;
  const LeaseId b = serve(registry, small);
  EXPECT_EQ(registry.limits().max_context_len, 64);
  EXPECT_EQ(registry.limits().vocab_size, 1000);
  registry.drain(b);
  EXPECT_EQ(registry.limits().max_context_len, 256);
}

TEST(ReplicaRegistryTest, CountsHoldUnderConcurrentJoinsAndRequests) {
  ReplicaRegistry registry;
  serve(registry, replica("always"));
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t)
    threads.emplace_back([&registry, t] {
      for (int i = 0; i < 300; ++i) {
        const std::string id(1, static_cast<char>(97 + t));
        const auto lease = registry.admit(replica(id, std::to_string(i)));
        ASSERT_TRUE(lease.ok());
        registry.activate(*lease);
        registry.report(*lease, i % 3);
        registry.end(*lease);
      }
    });
  for (int t = 0; t < 2; ++t)
    threads.emplace_back([&registry] {
      for (int i = 0; i < 1000; ++i) {
        const auto lease = registry.acquire();
        ASSERT_TRUE(lease.has_value());
        registry.release(*lease);
      }
    });
  for (std::thread& thread : threads) thread.join();
  ASSERT_EQ(registry.snapshot().size(), 1u);
  EXPECT_EQ(registry.snapshot()[0].outstanding, 0);
}

}  // namespace
}  // namespace trireme
