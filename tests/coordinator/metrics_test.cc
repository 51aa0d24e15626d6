// What a coordinator counts, and tells Prometheus.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <prometheus/text_serializer.h>

#include "coordinator/coordinator_metrics.h"
#include "coordinator/request_record.h"

namespace trireme {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

v1::GenerateResponse tokens(int count, int index = 0) {
  v1::GenerateResponse message;
  v1::Delta* delta = message.add_deltas();
  delta->set_index(index);
  for (int i = 0; i < count; ++i) delta->add_token_ids(i);
  return message;
}

TEST(RequestRecordTest, TimesCountFromTheArrival) {
  RelayMetrics metrics;
  const auto begin = RequestRecord::Clock::now();
  RequestRecord record(metrics, begin);
  record.routed("a-0", false, begin + milliseconds(2));
  record.passed_on(v1::GenerateResponse(), begin + milliseconds(5));  // the prompt
  record.passed_on(tokens(1), begin + milliseconds(10));
  record.passed_on(tokens(3), begin + milliseconds(30));
  record.ended(0, begin + milliseconds(40));
  EXPECT_NEAR(metrics.routing_time.snapshot().sum, 0.002, 1e-9);
  EXPECT_EQ(metrics.time_to_first_token.snapshot().count, 1);
  EXPECT_NEAR(metrics.time_to_first_token.snapshot().sum, 0.010, 1e-9);
  EXPECT_EQ(metrics.inter_token.snapshot().count, 3);
  EXPECT_NEAR(metrics.inter_token.snapshot().sum, 0.020, 1e-9);
  EXPECT_NEAR(metrics.end_to_end.snapshot().sum, 0.040, 1e-9);
  EXPECT_EQ(metrics.output_tokens.value(), 4);
  EXPECT_EQ(metrics.ended[0].value(), 1);
}

TEST(RequestRecordTest, SamplesHaveTheirOwnGaps) {
  RelayMetrics metrics;
  const auto begin = RequestRecord::Clock::now();
  RequestRecord record(metrics, begin);
  record.passed_on(tokens(1, 0), begin + milliseconds(10));
  record.passed_on(tokens(1, 1), begin + milliseconds(11));
  record.passed_on(tokens(1, 0), begin + milliseconds(20));
  EXPECT_EQ(metrics.inter_token.snapshot().count, 1);
  EXPECT_NEAR(metrics.inter_token.snapshot().sum, 0.010, 1e-9);
  EXPECT_EQ(metrics.time_to_first_token.snapshot().count, 1);
}

TEST(RequestRecordTest, ReceiptNamesReplicasAndResumes) {
  RelayMetrics metrics;
  const auto begin = RequestRecord::Clock::now();
  RequestRecord record(metrics, begin);
  EXPECT_TRUE(record.metadata().empty());
  record.routed("a-0", false, begin + milliseconds(1));
  RequestRecord::Metadata wanted = {
      {"trireme-routing-ms", "1.000"}, {"trireme-replicas", "a-0"}, {"trireme-resumes", "0"}};
  EXPECT_EQ(record.metadata(), wanted);
  record.routed("b-0", true, begin + milliseconds(9));
  wanted = {{"trireme-routing-ms", "1.000"},
            {"trireme-replicas", "a-0,b-0"},
            {"trireme-resumes", "1"},
            {"trireme-earlier-ms", "8.000"},
            {"trireme-earlier-tokens", "0"}};
  EXPECT_EQ(record.metadata(), wanted);
  EXPECT_EQ(metrics.resumes.value(), 1);
}

TEST(RequestRecordTest, ReceiptCoversEveryReplicaButTheLast) {
  RelayMetrics metrics;
  const auto begin = RequestRecord::Clock::now();
  RequestRecord record(metrics, begin);
  record.routed("a-0", false, begin + milliseconds(1));
  record.routed("b-0", false, begin + milliseconds(2));  // the first one had no room
  record.passed_on(tokens(3), begin + milliseconds(20));
  record.routed("a-0", true, begin + milliseconds(31));
  record.passed_on(tokens(4, 1), begin + milliseconds(40));
  record.routed("c-0", true, begin + milliseconds(51));
  record.passed_on(tokens(5), begin + milliseconds(60));
  const RequestRecord::Metadata wanted = {{"trireme-routing-ms", "1.000"},
                                          {"trireme-replicas", "a-0,b-0,a-0,c-0"},
                                          {"trireme-resumes", "2"},
                                          {"trireme-earlier-ms", "50.000"},
                                          {"trireme-earlier-tokens", "7"}};
  EXPECT_EQ(record.metadata(), wanted);
}

TEST(RequestRecordTest, WhatAReplicaSendsIsNotTrusted) {
  RelayMetrics metrics;
  RequestRecord record(metrics, RequestRecord::Clock::now());
  for (const int index : {-1, 1 << 30}) record.passed_on(tokens(1, index), RequestRecord::Clock::now());
  EXPECT_EQ(metrics.output_tokens.value(), 0);
  record.ended(12345, RequestRecord::Clock::now());
  EXPECT_EQ(metrics.ended[2].value(), 1);
}

TEST(CoordinatorMetricsTest, PageHasRequestsByCodeAndReplicasByState) {
  RelayMetrics metrics;
  metrics.count_end(0);
  metrics.count_end(8);
  v1::GetClusterResponse status;
  status.set_model("demo");
  status.set_requests_rejected(1);
  for (const char* id : {"a-0", "b-0"}) {
    v1::ReplicaStatus* replica = status.add_replicas();
    replica->set_replica_id(id);
    replica->set_state(v1::REPLICA_STATE_SERVING);
    replica->set_outstanding_requests(2);
    replica->set_routed_requests(5);
  }
  rpc::MetricsPage page;
  fill_metrics(status, metrics, page);
  const std::string text = prometheus::TextSerializer().Serialize(page.families());
  for (const char* line :
       {"\ntrireme:coordinator_requests_total{model_name=\"demo\",code=\"OK\"} 1\n",
        "\ntrireme:coordinator_requests_total{model_name=\"demo\",code=\"RESOURCE_EXHAUSTED\"} 1\n",
        "\ntrireme:coordinator_requests_rejected_total{model_name=\"demo\"} 1\n",
        "\ntrireme:coordinator_replicas{model_name=\"demo\",state=\"SERVING\"} 2\n",
        "\ntrireme:coordinator_replicas{model_name=\"demo\",state=\"DRAINING\"} 0\n",
        "\ntrireme:coordinator_replica_calls_total{model_name=\"demo\",replica=\"b-0\"} 5\n",
        "# TYPE trireme:coordinator_time_to_first_token_seconds histogram\n"})
    EXPECT_THAT(text, HasSubstr(line));
}

}  // namespace
}  // namespace trireme
