#include "launch/client/message_json.h"

#include <gtest/gtest.h>

#include "trireme/v1/cluster.pb.h"
#include "trireme/v1/inference.pb.h"

namespace trireme::client {
namespace {

TEST(MessageJsonTest, KeepsProtoNamesNestingAndNumbers) {
  v1::GetClusterResponse response;
  response.set_model("demo");
  response.set_uptime_ms(int64_t{1} << 40);
  v1::ReplicaStatus& replica = *response.add_replicas();
  replica.set_state(v1::REPLICA_STATE_SERVING);
  replica.mutable_load()->set_kv_blocks_free(12);
  replica.add_ranks()->set_host("node0");
  const nlohmann::json json = message_json(response);
  EXPECT_EQ(json["model"], "demo");
  EXPECT_EQ(json["uptime_ms"], int64_t{1} << 40);
  EXPECT_EQ(json["requests_total"], 0);
  EXPECT_EQ(json["replicas"][0]["state"], "REPLICA_STATE_SERVING");
  EXPECT_EQ(json["replicas"][0]["load"]["kv_blocks_free"], 12);
  EXPECT_EQ(json["replicas"][0]["ranks"][0]["host"], "node0");
}

TEST(MessageJsonTest, WhatWasNotSaidIsNull) {
  v1::SamplingParams sampling;
  sampling.set_top_k(0);
  const nlohmann::json json = message_json(sampling);
  EXPECT_EQ(json["top_k"], 0);
  EXPECT_TRUE(json["temperature"].is_null());
}

TEST(MessageJsonTest, MapsAreListsOfPairs) {
  v1::SamplingParams sampling;
  (*sampling.mutable_logit_bias())[5] = 2.0f;
  EXPECT_EQ(message_json(sampling)["logit_bias"], nlohmann::json::array({{{"key", 5}, {"value", 2.0f}}}));
}

}  // namespace
}  // namespace trireme::client
