// The receipt of a request that went through a coordinator.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/coordinator/failover_scripts.h"

namespace trireme {
namespace {

using ::testing::Contains;
using ::testing::Key;
using ::testing::Not;
using ::testing::Pair;

/// Does as `script`, and writes receipts.
FakeReplica::Script with_receipt(FakeReplica::Script script,
                                 std::vector<std::pair<std::string, std::string>> entries) {
  return [=](grpc::ServerContext& context, const v1::GenerateRequest& request, FakeReplica::Writer& writer) {
    for (const auto& [key, value] : entries) context.AddTrailingMetadata(key, value);
    return script(context, request, writer);
  };
}

TEST(ReceiptTest, TellsOfEveryReplicaAndTheLastOnesTimes) {
  TestCluster cluster;
  const auto a = cluster.join("a", send_part(true, 2, false, false));
  Stream stream(*cluster.inference, token_request());
  ASSERT_TRUE(stream.read_tokens(2));
  const auto b = cluster.join("b", with_receipt(continue_to(kTokens), {{"trireme-queue-ms", "1.5"}}));
  a->replica.stop();
  expect_whole(stream);
  const auto receipt = stream.trailing_metadata();
  EXPECT_THAT(receipt, Contains(Pair("trireme-queue-ms", "1.5")));
  EXPECT_THAT(receipt, Contains(Pair("trireme-replicas", "a,b")));
  EXPECT_THAT(receipt, Contains(Pair("trireme-resumes", "1")));
  EXPECT_THAT(receipt, Contains(Key("trireme-routing-ms")));
  EXPECT_THAT(receipt, Contains(Pair("trireme-earlier-tokens", "2")));
  EXPECT_THAT(receipt, Contains(Key("trireme-earlier-ms")));
}

TEST(ReceiptTest, AnImplausibleOneIsCutDown) {
  std::vector<std::pair<std::string, std::string>> entries = {{"trireme-long", std::string(1000, 'x')},
                                                              {"another-key", "y"}};
  for (int i = 0; i < 40; ++i) entries.emplace_back(absl::StrCat("trireme-", i, "-ms"), "1");
  TestCluster cluster;
  const auto a = cluster.join("a", with_receipt(send_tokens(3), entries));
  Stream stream(*cluster.inference, token_request());
  EXPECT_TRUE(stream.finish().ok());
  const auto receipt = stream.trailing_metadata();
  EXPECT_LE(receipt.size(), 20u);
  EXPECT_THAT(receipt, Not(Contains(Key("trireme-long"))));
  EXPECT_THAT(receipt, Not(Contains(Key("another-key"))));
  EXPECT_THAT(receipt, Contains(Pair("trireme-replicas", "a")));
}

TEST(ReceiptTest, ARefusedRequestHasNone) {
  TestCluster cluster;
  Stream stream(*cluster.inference, token_request());
  EXPECT_EQ(stream.finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(stream.trailing_metadata(), Not(Contains(Key(::testing::StartsWith("trireme-")))));
  EXPECT_EQ(cluster.describe().requests_rejected(), 1);
}

}  // namespace
}  // namespace trireme
