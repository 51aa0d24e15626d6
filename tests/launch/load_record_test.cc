#include "launch/client/load_record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

namespace trireme::client {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

const LoadTime kStart{std::chrono::hours(1)};
LoadTime at(int ms) { return kStart + milliseconds(ms); }

/// Scheduled and sent at `begin`, messages of (ms, tokens), ended at `end`.
CallRecord record(int begin, std::vector<std::pair<int, int>> messages, int end) {
  CallRecord result;
  result.started = true;
  result.scheduled = result.sent = at(begin);
  for (const auto& [ms, tokens] : messages) {
    result.arrivals.push_back({at(ms), tokens});
    result.num_tokens += tokens;
  }
  result.ended = at(end);
  return result;
}

TEST(PercentileTest, IsTheSmallestSampleThatCoversThePercentage) {
  std::vector<double> hundred(100);
  std::iota(hundred.begin(), hundred.end(), 1);
  for (int percent = 1; percent <= 100; ++percent) EXPECT_EQ(percentile(hundred, percent), percent);
  EXPECT_EQ(percentile({7}, 1), 7);
  EXPECT_EQ(percentile({7}, 99), 7);
  EXPECT_EQ(percentile({1, 2}, 50), 1);
  EXPECT_EQ(percentile({1, 2}, 51), 2);
}

TEST(PercentileTest, AgreesWithCountingForAnyNumberOfSamples) {
  std::mt19937 random(1);
  for (size_t count = 1; count < 250; ++count) {
    std::vector<double> samples(count);
    for (double& sample : samples) sample = static_cast<double>(random() % 50);
    const Distribution result = describe_samples(samples);
    std::sort(samples.begin(), samples.end());
    for (const auto& [percent, got] : {std::pair(50, result.p50), {95, result.p95}, {99, result.p99}}) {
      const auto covered = [&](double value) {
        return 100 * std::count_if(samples.begin(), samples.end(), [&](double s) { return s <= value; }) >=
               percent * static_cast<int64_t>(count);
      };
      EXPECT_TRUE(covered(got));
      const auto smallest = std::find_if(samples.begin(), samples.end(), covered);
      EXPECT_EQ(got, *smallest) << percent << " % of " << count;
    }
    EXPECT_EQ(result.max, samples.back());
  }
}

TEST(LoadReportTest, MetricsOfOneRequestAreThoseDefined) {
  // 3 tokens at 100 ms, 2 at 150, 1 at 180.
  const LoadReport report = summarize({record(0, {{100, 3}, {150, 2}, {180, 1}}, 200)}, {});
  EXPECT_EQ(report.ttft_ms.p50, 100);
  EXPECT_EQ(report.e2e_ms.p50, 200);
  EXPECT_EQ(report.tpot_ms.p50, (200 - 100) / 5.0);
  ASSERT_EQ(report.itl_ms.count, 5u);  // 0 0 25 25 30
  EXPECT_EQ(report.itl_ms.mean * 5, 80);
  EXPECT_EQ(report.itl_ms.p50, 25);
  EXPECT_EQ(report.itl_ms.max, 30);
  EXPECT_EQ(report.output_tokens, 6);
  EXPECT_EQ(report.messages, 3);
  EXPECT_DOUBLE_EQ(report.output_tokens_per_s(), 30);
}

TEST(LoadReportTest, LatencyCountsFromTheScheduleAndNotFromTheSending) {
  CallRecord late = record(0, {{1500, 1}}, 1600);
  late.sent = at(1000);
  const LoadReport report = summarize({late}, {});
  EXPECT_EQ(report.ttft_ms.p50, 1500);
  EXPECT_EQ(report.e2e_ms.p50, 1600);
  EXPECT_EQ(report.send_delay_ms.p50, 1000);
  EXPECT_EQ(report.tpot_ms.count, 0u);  // one token has none
}

TEST(LoadReportTest, EveryRequestIsCountedOnce) {
  std::vector<CallRecord> records = {record(0, {{10, 1}, {20, 1}}, 30), record(5, {}, 6),
                                     record(7, {{9, 1}}, 11), record(8, {{9, 1}}, 12), CallRecord{}};
  records[0].prompt_tokens = 100;
  records[0].cached_tokens = 40;
  records[0].expected_tokens = 3;
  records[1].status = grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "queue is full");
  records[2].status = grpc::Status(grpc::StatusCode::UNAVAILABLE, "gone");
  records[3].status = grpc::Status(grpc::StatusCode::CANCELLED, "");
  records[3].interrupted = true;
  const LoadReport report = summarize(records, {});
  EXPECT_EQ(report.requests, 5);
  EXPECT_EQ(report.ok, 1);
  EXPECT_EQ(report.errors, 2);
  EXPECT_EQ(report.interrupted, 1);
  EXPECT_EQ(report.not_started, 1);
  EXPECT_EQ(report.wrong_lengths, 1);
  EXPECT_EQ(report.errors_by_code,
            (std::map<std::string, int64_t>{{"RESOURCE_EXHAUSTED", 1}, {"UNAVAILABLE", 1}}));
  EXPECT_EQ(report.output_tokens, 2);  // of those that ended well
  EXPECT_EQ(report.ttft_ms.count, 1u);
  EXPECT_DOUBLE_EQ(report.duration_s, 0.03);
  const nlohmann::json json = to_json(report, {});
  EXPECT_EQ(json["errors_by_code"]["UNAVAILABLE"], 1);
  EXPECT_EQ(json["cached_tokens"], 40);
  EXPECT_EQ(json["itl_ms"]["count"], 1);
  EXPECT_FALSE(json.contains("goodput"));
  EXPECT_THAT(to_text(report, {}), HasSubstr("1 x RESOURCE_EXHAUSTED: queue is full"));
}

TEST(LoadReportTest, ARunThatStartedNothingHasNoTimes) {
  const LoadReport report = summarize({CallRecord{}}, {});
  EXPECT_EQ(report.not_started, 1);
  EXPECT_EQ(report.duration_s, 0);
  EXPECT_EQ(report.requests_per_s(), 0);
  EXPECT_EQ(to_json(report, {})["ttft_ms"], (nlohmann::json{{"count", 0}}));
}

TEST(GoodputTest, ARequestIsGoodWhenItMeetsEveryTarget) {
  const std::vector<CallRecord> records = {
      record(0, {{100, 1}, {200, 1}}, 200),   // TTFT 100, TPOT 100
      record(0, {{300, 1}, {350, 1}}, 350),   // late
      record(0, {{100, 1}, {900, 1}}, 1000),  // slow
  };
  EXPECT_EQ(summarize(records, *parse_goodput("ttft:150,tpot:150")).good, 1);
  EXPECT_EQ(summarize(records, *parse_goodput("ttft:150")).good, 2);
  EXPECT_EQ(summarize(records, *parse_goodput("e2e:350")).good, 2);
  const auto targets = *parse_goodput("tpot:100");
  const LoadReport report = summarize(records, targets);
  EXPECT_EQ(report.good, 2);
  EXPECT_DOUBLE_EQ(report.goodput_per_s(), 2);
  EXPECT_EQ(to_json(report, targets)["goodput"]["targets"], (nlohmann::json{{"tpot_ms", 100.0}}));
}

TEST(GoodputTest, WhatIsNoTargetIsNamed) {
  for (const char* text : {"", "ttft", "ttft:", "ttft:x", "ttft:0", "ttft:-1", "ttft:nan", "ttft:inf",
                           "itl:5", "ttft:1,", "ttft:1,ttft:2", "ttft:1:2"}) {
    const auto targets = parse_goodput(text);
    EXPECT_FALSE(targets.ok()) << text;
    EXPECT_THAT(std::string(targets.status().message()), HasSubstr("wanted ttft:MS, tpot:MS or e2e:MS"));
  }
}

}  // namespace
}  // namespace trireme::client
