// What a leader counts, tells Prometheus and writes on receipts.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>

#include <prometheus/text_serializer.h>

#include "proto/support/errors.h"
#include "tests/worker/service_fixture.h"
#include "worker/leader_metrics.h"

namespace trireme::worker {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

class LeaderMetricsTest : public ServiceFixture {
 protected:
  std::string page() {
    rpc::MetricsPage filled;
    fill_metrics(leader->status(), leader->metrics(), filled);
    return prometheus::TextSerializer().Serialize(filled.families());
  }
  /// The page once it has `line`; the step loop tells a little after a request has ended.
  std::string page_with(const std::string& line) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (page().find("\n" + line + "\n") == std::string::npos &&
           std::chrono::steady_clock::now() < deadline)
      std::this_thread::sleep_for(milliseconds(1));
    return page();
  }
};

TEST_F(LeaderMetricsTest, CountsWhatWasServed) {
  start(saying("hello"));
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(generate(request("hi", 4)).status.ok());
  const Stream stopped = generate(request("hi"));
  EXPECT_EQ(stopped.finish_reason, v1::FINISH_REASON_STOP);
  const std::string text = page_with("trireme:requests_completed_total 4");
  EXPECT_THAT(text, HasSubstr("\ntrireme:request_success_total{finished_reason=\"length\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("\ntrireme:request_success_total{finished_reason=\"stop\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("\ntrireme:time_to_first_token_seconds_count 4\n"));
  EXPECT_THAT(text, HasSubstr("\ntrireme:e2e_request_latency_seconds_count 4\n"));
  EXPECT_THAT(text, HasSubstr("\ntrireme:request_queue_time_seconds_count 4\n"));
  EXPECT_THAT(text, HasSubstr("\ntrireme:request_prefill_time_seconds_count 4\n"));
  // Each token but a request's first follows another.
  const int64_t num_tokens = 3 * 4 + static_cast<int64_t>(stopped.token_ids.size());
  EXPECT_EQ(leader->metrics().inter_token.snapshot().count, num_tokens - 4);
  EXPECT_EQ(leader->metrics().output_tokens.snapshot().sum, static_cast<double>(num_tokens));
}

TEST_F(LeaderMetricsTest, RefusalsFailuresAndCancelsAreToldApart) {
  FakeEngine::Script script = saying("hello");
  script.finish = [](const Request& asked, int32_t) {
    return asked.prompt.size() > 4 ? FinishReason::numerical_error : FinishReason::none;
  };
  start(std::move(script));
  v1::GenerateRequest wrong = request("hi", 4);
  wrong.mutable_sampling()->set_temperature(-1);
  const Stream refused = generate(wrong);
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_TRUE(refused.receipt.empty());
  EXPECT_EQ(generate(request("longer", 4)).status.error_code(), grpc::StatusCode::INTERNAL);
  engine->hold();
  auto leaving = context();
  auto reader = stub->Generate(leaving.get(), request("hi"));
  ASSERT_TRUE(engine->wait_for([](const auto& counts) { return counts.submitted.size() == 2; }));
  leaving->TryCancel();
  read_all(*reader);
  const std::string text = page_with("trireme:requests_cancelled_total 1");
  engine->let_go();
  EXPECT_THAT(text, HasSubstr("\ntrireme:requests_cancelled_total 1\n"));
  EXPECT_THAT(text, HasSubstr("\ntrireme:requests_rejected_total{code=\"INVALID_ARGUMENT\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("\ntrireme:requests_failed_total{code=\"INTERNAL\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("\ntrireme:requests_completed_total 0\n"));
  const RequestTotals totals = request_totals(leader->metrics());
  EXPECT_EQ(totals.rejected, 1);
  EXPECT_EQ(totals.cancelled, 1);
}

TEST_F(LeaderMetricsTest, EveryFamilyHasItsNameHelpAndTypeOnce) {
  LeaderOptions options;
  options.telemetry_interval = milliseconds(1);
  options.idle_interval = milliseconds(1);
  start(saying("hello"), {}, options);
  page_with("trireme:step_phase_seconds_total{rank=\"1\",phase=\"compute\"} 2");
  rpc::MetricsPage filled;
  fill_metrics(leader->status(), leader->metrics(), filled);
  std::set<std::string> names;
  for (const prometheus::MetricFamily& family : filled.families()) {
    EXPECT_TRUE(names.insert(family.name).second) << family.name;
    EXPECT_FALSE(family.help.empty()) << family.name;
    EXPECT_EQ(family.type == prometheus::MetricType::Counter,
              family.name.size() > 6 && family.name.substr(family.name.size() - 6) == "_total")
        << family.name;
    std::set<std::vector<prometheus::ClientMetric::Label>> labels;
    for (const prometheus::ClientMetric& metric : family.metric)
      EXPECT_TRUE(labels.insert(metric.label).second) << family.name << " has a sample twice";
  }
  EXPECT_TRUE(names.count("trireme:kv_cache_usage_perc"));
  EXPECT_THAT(page(), HasSubstr("\ntrireme:step_phase_seconds_total{rank=\"1\",phase=\"compute\"} 2\n"));
  for (const char* sample :
       {"collective_wait\"} 0.25", "collective_transfer\"} 0.5", "unaccounted\"} 1.25"}) {
    EXPECT_THAT(page(), HasSubstr("\ntrireme:step_phase_seconds_total{rank=\"1\",phase=\"" +
                                  std::string(sample) + "\n"));
  }
  EXPECT_THAT(page(), HasSubstr("\ntrireme:clock_error_seconds{rank=\"1\"} 5e-06\n"));
  EXPECT_THAT(page(), HasSubstr("\ntrireme:compiled_kernels_total{rank=\"0\"} 7\n"));
}

TEST_F(LeaderMetricsTest, BlocksThatARequestLeftBehindAreTold) {
  FakeEngine::Script script;
  script.blocks_of_finished = 3;
  start(std::move(script));
  EXPECT_THAT(page(), HasSubstr("\ntrireme:kv_cache_blocks_of_finished_requests 3\n"));
}

TEST_F(LeaderMetricsTest, ReceiptSaysWhereTheTimeWent) {
  FakeEngine::Script script = saying("hello world");
  script.cached_tokens = 1;
  start(std::move(script));
  const auto begin = std::chrono::steady_clock::now();
  const Stream stream = generate(request("hi", 5));
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begin;
  ASSERT_TRUE(stream.status.ok());
  const Receipt& receipt = stream.receipt;
  for (const char* key :
       {"trireme-queue-ms", "trireme-prefill-ms", "trireme-decode-ms", "trireme-collective-ms",
        "trireme-prompt-tokens", "trireme-cached-tokens", "trireme-completion-tokens"})
    ASSERT_EQ(receipt.count(key), 1u) << key;
  EXPECT_EQ(receipt.at("trireme-prompt-tokens"),
            std::to_string(stream.messages.back().usage().prompt_tokens()));
  EXPECT_EQ(receipt.at("trireme-completion-tokens"), "5");
  EXPECT_EQ(receipt.at("trireme-cached-tokens"), "1");
  // Five steps of a scripted millisecond.
  EXPECT_EQ(receipt.at("trireme-collective-ms"), "5.000");
  EXPECT_LE(std::stod(receipt.at("trireme-queue-ms")) + std::stod(receipt.at("trireme-prefill-ms")) +
                std::stod(receipt.at("trireme-decode-ms")),
            took.count());
}

TEST_F(LeaderMetricsTest, UnaryCallsHaveReceiptsToo) {
  start(saying("hello world"));
  auto call = context();
  v1::GenerateOnceResponse response;
  ASSERT_TRUE(stub->GenerateOnce(call.get(), request("hi", 3), &response).ok());
  const Receipt receipt = receipt_of(*call);
  ASSERT_EQ(receipt.count("trireme-completion-tokens"), 1u);
  EXPECT_EQ(receipt.at("trireme-completion-tokens"), "3");
  EXPECT_EQ(receipt.count("trireme-decode-ms"), 1u);
}

}  // namespace
}  // namespace trireme::worker
