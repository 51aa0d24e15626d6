// One client's share of a replica's queue, through a coordinator.

#include <gmock/gmock.h>

#include <memory>

#include "tests/e2e/service_fixture.h"

namespace trireme::testing {
namespace {

using ::testing::HasSubstr;

class ClientQueueTest : public ServiceFixture {
 protected:
  void open(const std::string& client) {
    streams_.push_back(
        std::make_unique<Stream>(*stub_, greedy_request("Once upon a time", 50'000), 60, client));
  }
  void await_waiting(int64_t count) {
    wait_for_cluster(std::to_string(count) + " waiting requests",
                     [count](const v1::GetClusterResponse& cluster) {
                       return cluster.replicas(0).load().waiting_requests() == count;
                     });
  }

  std::unique_ptr<v1::Inference::Stub> stub_;
  std::vector<std::unique_ptr<Stream>> streams_;
};

TEST_F(ClientQueueTest, FullOneRefusesItsClientAlone) {
  start_coordinator();
  start_job(1, {"--max-num-seqs", "1", "--max-queued-per-client", "2"}, endless_model());
  wait_serving(1);
  stub_ = inference_stub();
  open("first");
  ASSERT_TRUE(streams_.front()->read_tokens(1));
  for (int i = 0; i < 2; ++i) open("a");
  await_waiting(2);
  const CommandResult refused = generate({"--prompt", "And then", "--client", "a"});
  EXPECT_EQ(refused.exit_code, 3) << refused.output;
  EXPECT_EQ(refused.json["error"]["code"], "RESOURCE_EXHAUSTED") << refused.output;
  EXPECT_EQ(refused.json["error"]["retry_delay_ms"], 1000) << refused.output;
  EXPECT_THAT(refused.output, HasSubstr("queue of client 'a' is full: 2 of its requests wait"));
  for (int i = 0; i < 2; ++i) open("b");
  open("");
  await_waiting(5);
  EXPECT_EQ(generate({"--prompt", "And then", "--client", "b"}).exit_code, 3);
  streams_.clear();
  await_waiting(0);
  EXPECT_EQ(generate({"--prompt", "And then", "--max-tokens", "2", "--client", "a"}).exit_code, 0);
}

}  // namespace
}  // namespace trireme::testing
