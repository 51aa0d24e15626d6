#pragma once

#include <condition_variable>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <nlohmann/json.hpp>

#include "tests/testing/process_fixture.h"
#include "trireme/v1/cluster.grpc.pb.h"
#include "trireme/v1/inference.grpc.pb.h"

namespace trireme::testing {

/// What `trireme` ended with.
struct CommandResult {
  int exit_code = -1;
  std::string output;   // standard output and standard error together
  nlohmann::json json;  // of standard output; discarded when there is none
};

/// Coordinators, jobs and clients as real processes around the demo model.
class ServiceFixture : public ProcessFixture {
 protected:
  static std::filesystem::path program(const std::string& name);
  static std::filesystem::path source(const std::string& path);
  static std::filesystem::path demo_model() { return source("launch/demo-model"); }
  /// The demo model with a context so long that a request which ignores end-of-text never ends within a test.
  std::filesystem::path endless_model();

  /// Starts a coordinator on a fresh port and waits until it listens; address() is its address from then on.
  Process& start_coordinator(std::vector<std::string> options = {});
  const std::string& address() const { return address_; }
  void set_address(const std::string& address) { address_ = address; }

  /// mpirun of `num_ranks` workers of one thread each, in f32, that join the coordinator.
  Process& start_job(int num_ranks, std::vector<std::string> options = {},
                     std::filesystem::path model = demo_model());
  /// Waits until replicas of this many ranks together serve. Throws, which ends the test, when they do not in
  /// time, or when one of the jobs ends.
  void wait_serving(int num_ranks);
  /// Waits until a job has ended, as one with a killed rank soon has; wait_serving() minds it no more.
  void await_dead_job();

  /// Runs `trireme` to its end.
  CommandResult run_trireme(std::vector<std::string> arguments, double seconds = 60);
  /// `trireme generate --json` at address(), greedy unless told otherwise.
  CommandResult generate(std::vector<std::string> arguments);
  /// GetCluster of the coordinator.
  v1::GetClusterResponse cluster();
  /// Polls cluster() until `condition` holds for it; fails the test, naming `what`, at the deadline.
  template <typename Condition>
  void wait_for_cluster(const std::string& what, Condition condition, double seconds = 20);

  /// Workers of this test in rank order of their jobs: pid, and the rank mpirun gave them.
  struct Rank {
    pid_t pid = 0;
    int rank = 0;
    pid_t session = 0;  // of the mpirun that started it
  };
  std::vector<Rank> ranks() const;

  std::unique_ptr<v1::Inference::Stub> inference_stub() const;

 private:
  const Process* first_ended_job() const;

  std::string address_;
  std::vector<Process*> jobs_;
};

/// A Generate call. A thread of its own reads what comes: a client that does not read is soon cancelled.
class Stream {
 public:
  /// `client`: on whose behalf; this host's when empty.
  Stream(v1::Inference::Stub& stub, const v1::GenerateRequest& request, double timeout_s = 60,
         const std::string& client = "");
  /// Cancels what still runs.
  ~Stream();
  /// Waits until `count` tokens have come; false when the stream ended before, or after 60 s.
  bool read_tokens(int count);
  /// Waits for the end and returns how the call ended.
  grpc::Status finish();
  std::vector<int> token_ids() const;
  int num_tokens() const { return static_cast<int>(token_ids().size()); }
  /// What came so far: every sample's text, ids and logprobs, and how it ended.
  v1::GenerateOnceResponse result() const;

 private:
  void read_all();

  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> reader_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  const int num_samples_;
  std::vector<int> token_ids_;
  v1::GenerateOnceResponse result_;
  grpc::Status status_;
  bool finished_ = false;
  std::thread thread_;
};

/// A greedy request that ignores end-of-text.
v1::GenerateRequest greedy_request(const std::string& prompt, int max_tokens);

template <typename Condition>
void ServiceFixture::wait_for_cluster(const std::string& what, Condition condition, double seconds) {
  const auto deadline = deadline_in(seconds);
  v1::GetClusterResponse last;
  while (SteadyClock::now() < deadline) {
    last = cluster();
    if (condition(last)) return;
  }
  FAIL() << what << ": not reached in " << seconds << " s\n" << last.DebugString();
}

}  // namespace trireme::testing
