// Metrics, receipts and the status view of real processes.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <sstream>

#include "proto/support/endpoint.h"
#include "tests/e2e/service_fixture.h"

namespace trireme::testing {
namespace {

using ::testing::HasSubstr;

/// Asks for metrics, and never reads them.
class HangingScraper {
 public:
  HangingScraper(const std::string& address, const std::string& request)
      : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in server{};
    server.sin_family = AF_INET;
    server.sin_port = htons(static_cast<uint16_t>(rpc::parse_address(address)->port));
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const bool connected = ::connect(socket_, reinterpret_cast<sockaddr*>(&server), sizeof(server)) == 0;
    EXPECT_TRUE(connected) << address;
    ::send(socket_, request.data(), request.size(), MSG_NOSIGNAL);
  }
  ~HangingScraper() { ::close(socket_); }
  HangingScraper(const HangingScraper&) = delete;
  HangingScraper& operator=(const HangingScraper&) = delete;

 private:
  int socket_;
};

class MetricsE2eTest : public ServiceFixture {
 protected:
  static constexpr int kStreams = 4, kRequestsPerStream = 25, kTokens = 48;

  void SetUp() override {
    ServiceFixture::SetUp();
    start_coordinator();
    start_job(2, {"--tensor-parallel", "2"});
    wait_serving(2);
    const v1::GetClusterResponse status = cluster();
    coordinator_metrics_ = status.metrics_address();
    leader_metrics_ = status.replicas(0).metrics_address();
    replica_id_ = status.replicas(0).replica_id();
    ASSERT_FALSE(coordinator_metrics_.empty());
    ASSERT_FALSE(leader_metrics_.empty());
  }

  struct Scrape {
    nlohmann::json coordinator, leader;
  };
  Scrape scrape() {
    const auto url = [](const std::string& address) { return "http://" + address + "/metrics"; };
    Process& reader = start({"/usr/bin/python3", source("tests/e2e/read_metrics.py"),
                             url(coordinator_metrics_), url(leader_metrics_)});
    EXPECT_EQ(reader.wait(deadline_in(30)), 0) << reader.output();
    std::istringstream lines(reader.standard_output());
    Scrape result;
    std::string line;
    if (std::getline(lines, line)) result.coordinator = nlohmann::json::parse(line, nullptr, false);
    if (std::getline(lines, line)) result.leader = nlohmann::json::parse(line, nullptr, false);
    return result;
  }
  std::string of_coordinator(const std::string& name, const std::string& before = "",
                             const std::string& after = "") const {
    return "trireme:coordinator_" + name + "{" + before + "model_name=\"demo-model\"" + after + "}";
  }
  std::string of_leader(const std::string& name, const std::string& before = "",
                        const std::string& after = "") const {
    return "trireme:" + name + "{" + before + "model_name=\"demo-model\"" + after + ",replica=\"" +
           replica_id_ + "\"}";
  }
  /// Scrapes until `condition` holds of it.
  template <typename Condition>
  Scrape scrape_until(const std::string& what, Condition condition) {
    const auto deadline = deadline_in(20);
    while (true) {
      Scrape last = scrape();
      if (HasFailure() || condition(last)) return last;
      if (SteadyClock::now() > deadline) {
        ADD_FAILURE() << what << ": not reached\n" << last.coordinator.dump(1) << last.leader.dump(1);
        return last;
      }
    }
  }

  /// The same request again and again, on several connections at once. What comes must be `expected`.
  void load(const std::vector<int>& expected, const std::function<void()>& meanwhile) {
    std::atomic<int> running{kStreams};
    std::vector<std::thread> threads;
    for (int i = 0; i < kStreams; ++i) {
      threads.emplace_back([&] {
        const auto stub = inference_stub();
        for (int k = 0; k < kRequestsPerStream; ++k) {
          Stream stream(*stub, greedy_request(kPrompt, kTokens));
          EXPECT_TRUE(stream.finish().ok());
          EXPECT_EQ(stream.token_ids(), expected);
        }
        --running;
      });
    }
    do meanwhile();
    while (running > 0);
    for (std::thread& thread : threads) thread.join();
  }

  static constexpr char kPrompt[] = "In the beginning God created the heaven and the earth. And the earth";
  std::string coordinator_metrics_, leader_metrics_, replica_id_;
};

TEST_F(MetricsE2eTest, BothEndpointsUnderLoadAgreeWithWhatWasSent) {
  Stream first(*inference_stub(), greedy_request(kPrompt, kTokens));
  ASSERT_TRUE(first.finish().ok());
  const std::vector<int> expected = first.token_ids();
  ASSERT_EQ(expected.size(), kTokens);
  const CommandResult once = generate({"--prompt", kPrompt, "--max-tokens", "1"});
  const int num_prompt_tokens = once.json["usage"].value("prompt_tokens", 0);
  EXPECT_EQ(generate({"--prompt", "x", "--temperature", "-1"}).exit_code, 2);

  std::vector<std::unique_ptr<HangingScraper>> hanging;
  for (const std::string& address : {coordinator_metrics_, leader_metrics_}) {
    hanging.push_back(std::make_unique<HangingScraper>(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"));
    hanging.push_back(std::make_unique<HangingScraper>(address, "GET /met"));
    hanging.push_back(std::make_unique<HangingScraper>(address, std::string("\0\xff\r\n\r\n", 6)));
  }
  load(expected, [this] { scrape(); });

  constexpr int kRequests = 1 + 1 + kStreams * kRequestsPerStream;  // the first, the short one, the load
  constexpr int kAllTokens = kRequests * kTokens - (kTokens - 1);
  const Scrape seen = scrape_until("every request has ended", [&](const Scrape& now) {
    return now.coordinator.value(of_coordinator("requests_total", "code=\"OK\","), 0.0) == kRequests &&
           now.leader.value(of_leader("requests_completed_total"), 0.0) == kRequests &&
           now.leader.value(of_leader("generation_tokens_total"), 0.0) == kAllTokens &&
           now.leader.value(of_leader("num_requests_running"), 1.0) == 0;
  });
  const auto coordinator = [&](const std::string& key) { return seen.coordinator.value(key, -1.0); };
  const auto leader = [&](const std::string& key) { return seen.leader.value(key, -1.0); };
  EXPECT_EQ(coordinator(of_coordinator("requests_total", "code=\"INVALID_ARGUMENT\",")), 1);
  EXPECT_EQ(coordinator(of_coordinator("requests_rejected_total")), 1);
  EXPECT_EQ(coordinator(of_coordinator("generation_tokens_total")), kAllTokens);
  EXPECT_EQ(coordinator(of_coordinator("time_to_first_token_seconds_count")), kRequests);
  EXPECT_EQ(coordinator(of_coordinator("inter_token_latency_seconds_count")), kAllTokens - kRequests);
  EXPECT_EQ(coordinator(of_coordinator("e2e_request_latency_seconds_count")), kRequests);
  EXPECT_EQ(coordinator(of_coordinator("num_requests_running")), 0);
  EXPECT_EQ(coordinator(of_coordinator("replicas", "", ",state=\"SERVING\"")), 1);
  // Other calls are routed too: the fixture's GetModel.
  EXPECT_GE(coordinator(of_coordinator("replica_calls_total", "", ",replica=\"" + replica_id_ + "\"")),
            kRequests);

  EXPECT_EQ(leader(of_leader("request_success_total", "finished_reason=\"length\",")), kRequests);
  EXPECT_EQ(leader(of_leader("request_success_total", "finished_reason=\"stop\",")), 0);
  EXPECT_EQ(leader(of_leader("prompt_tokens_total")), kRequests * num_prompt_tokens);
  EXPECT_EQ(leader(of_leader("request_prompt_tokens_sum")), kRequests * num_prompt_tokens);
  EXPECT_EQ(leader(of_leader("request_generation_tokens_sum")), kAllTokens);
  for (const char* name :
       {"time_to_first_token_seconds", "e2e_request_latency_seconds", "request_queue_time_seconds",
        "request_prefill_time_seconds", "request_decode_time_seconds"})
    EXPECT_EQ(leader(of_leader(std::string(name) + "_count")), kRequests) << name;
  EXPECT_EQ(leader(of_leader("inter_token_latency_seconds_count")), kAllTokens - kRequests);
  EXPECT_GT(leader(of_leader("prefix_cache_hits_total")), 0);
  EXPECT_LT(leader(of_leader("prefix_cache_hits_total")), leader(of_leader("prefix_cache_queries_total")));
  EXPECT_EQ(leader(of_leader("kv_cache_usage_perc")), 0);
  EXPECT_EQ(leader(of_leader("kv_cache_blocks_of_finished_requests")), 0);

  // Told once a second, by the follower too.
  scrape_until("every rank has computed and summed", [&](const Scrape& now) {
    bool all = true;
    for (const char* rank : {"0", "1"}) {
      for (const char* phase : {"compute", "collective_transfer"}) {
        // Labels are sorted by name: model_name, phase, rank, replica.
        const std::string key = of_leader("step_phase_seconds_total", "",
                                          std::string(",phase=\"") + phase + "\",rank=\"" + rank + "\"");
        all = all && now.leader.value(key, 0.0) > 0;
      }
    }
    return all;
  });
}

TEST_F(MetricsE2eTest, ReceiptComesThroughTheCoordinator) {
  ASSERT_EQ(generate({"--prompt", kPrompt, "--max-tokens", "8", "--ignore-eos"}).exit_code, 0);
  const CommandResult run = generate({"--prompt", kPrompt, "--max-tokens", "8", "--ignore-eos"});
  const nlohmann::json receipt = run.json["receipt"];
  for (const char* key : {"queue_ms", "prefill_ms", "decode_ms", "collective_ms", "routing_ms"})
    EXPECT_TRUE(receipt.contains(key) && receipt[key].is_number() && receipt[key] >= 0) << receipt.dump();
  EXPECT_EQ(receipt.value("completion_tokens", 0), 8);
  EXPECT_EQ(receipt.value("prompt_tokens", 0), run.json["usage"]["prompt_tokens"]);
  EXPECT_EQ(receipt.value("cached_tokens", -1), run.json["usage"]["cached_tokens"]);
  EXPECT_GT(receipt.value("cached_tokens", -1), 0);
  EXPECT_GT(receipt.value("collective_ms", 0.0), 0);
  EXPECT_EQ(receipt.value("replicas", ""), replica_id_);
  EXPECT_EQ(receipt.value("resumes", -1), 0);
  EXPECT_LE(
      receipt.value("queue_ms", 0.0) + receipt.value("prefill_ms", 0.0) + receipt.value("decode_ms", 0.0),
      run.json["timing"].value("total_ms", 0.0));
}

TEST_F(MetricsE2eTest, WatchedStatusShowsLoadUntilItIsInterrupted) {
  Process& watch = start({program("trireme"), "status", "--watch", "0.05", "--address", address()});
  ASSERT_TRUE(watch.wait_for_output(replica_id_ + " SERVING", deadline_in(20))) << watch.output();
  ASSERT_EQ(generate({"--prompt", kPrompt, "--max-tokens", "4", "--ignore-eos"}).exit_code, 0);
  EXPECT_TRUE(watch.wait_for_output("4 tokens out", deadline_in(20))) << watch.output();
  watch.signal(SIGINT);
  EXPECT_EQ(watch.wait(deadline_in(20)), 0) << watch.output();
  EXPECT_THAT(watch.output(), ::testing::Not(HasSubstr("\x1b")));  // no terminal
}

TEST_F(MetricsE2eTest, WatchedStatusIsRedrawnOnATerminal) {
  Process& terminal =
      start({"script", "--quiet", "--return", "--command",
             program("trireme").string() + " status --watch=0.05 --address " + address(), "/dev/null"});
  EXPECT_TRUE(terminal.wait_for_output("\x1b[4F", deadline_in(20))) << terminal.output();
  EXPECT_THAT(terminal.output(), HasSubstr("TOKENS/S"));
  for (const ProcessEntry& entry : processes("trireme")) ::kill(entry.pid, SIGINT);
  EXPECT_EQ(terminal.wait(deadline_in(20)), 0) << terminal.output();
}

}  // namespace
}  // namespace trireme::testing
