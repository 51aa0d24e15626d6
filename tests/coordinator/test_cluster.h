#pragma once
// A coordinator in this process, and how tests call it.

#include <map>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "coordinator/coordinator.h"
#include "proto/support/errors.h"
#include "tests/coordinator/fake_replica.h"

namespace trireme {

inline CoordinatorOptions on_a_free_port() {
  CoordinatorOptions options;
  options.listen.port = 0;
  return options;
}

/// A request whose replica died and that finds no other one ends at once.
inline CoordinatorOptions without_waiting() {
  CoordinatorOptions options = on_a_free_port();
  options.frontend.request.resume_timeout = std::chrono::milliseconds(0);
  return options;
}

inline v1::GenerateRequest token_request(const std::string& id = "") {
  v1::GenerateRequest request;
  request.set_request_id(id);
  request.mutable_token_ids()->add_ids(7);
  return request;
}

/// A fake replica with its lease.
struct Joined {
  Joined(const std::string& coordinator, const std::string& id, FakeReplica::Script script = nullptr)
      : replica(std::move(script)), leader(coordinator, registration(id, replica.port())) {
    EXPECT_TRUE(leader.was_told(v1::REPLICA_STATE_SERVING));
  }
  FakeReplica replica;
  FakeLeader leader;
};

class TestCluster {
 public:
  explicit TestCluster(const CoordinatorOptions& options = on_a_free_port()) {
    auto started = Coordinator::start(options);
    EXPECT_TRUE(started.ok()) << started.status();
    coordinator = std::move(*started);
    channel = rpc::create_channel(coordinator->address());
    inference = v1::Inference::NewStub(channel);
    cluster = v1::Cluster::NewStub(channel);
  }

  std::string address() const { return coordinator->address(); }
  std::unique_ptr<Joined> join(const std::string& id, FakeReplica::Script script = nullptr) {
    return std::make_unique<Joined>(address(), id, std::move(script));
  }

  v1::GetClusterResponse describe() {
    grpc::ClientContext context;
    set_patience(context);
    v1::GetClusterResponse response;
    const grpc::Status status = cluster->GetCluster(&context, {}, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }
  v1::ReplicaState state_of(const std::string& id) {
    const v1::GetClusterResponse response = describe();
    for (const v1::ReplicaStatus& replica : response.replicas())
      if (replica.replica_id() == id) return replica.state();
    return v1::REPLICA_STATE_UNSPECIFIED;
  }

  std::unique_ptr<Coordinator> coordinator;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::Inference::Stub> inference;
  std::unique_ptr<v1::Cluster::Stub> cluster;
};

/// A Generate stream, read message by message.
class Stream {
 public:
  Stream(v1::Inference::Stub& stub, const v1::GenerateRequest& request,
         std::chrono::milliseconds timeout = kPatience) {
    context_.set_deadline(std::chrono::system_clock::now() + timeout);
    reader_ = stub.Generate(&context_, request);
  }
  /// Reads one message; false at the end.
  bool next() {
    message.Clear();
    if (!reader_->Read(&message)) return false;
    if (message.has_prompt()) {
      prompt = message.prompt();
      ++num_prompts;
    }
    if (message.has_usage()) usage = message.usage();
    for (const v1::Delta& delta : message.deltas()) {
      tokens.insert(tokens.end(), delta.token_ids().begin(), delta.token_ids().end());
      text += delta.text();
      if (delta.has_finish_reason()) finish_reason = delta.finish_reason();
    }
    return true;
  }
  bool read_tokens(size_t n) {
    while (tokens.size() < n)
      if (!next()) return false;
    return true;
  }
  /// Reads to the end.
  grpc::Status finish() {
    while (next()) {
    }
    return reader_->Finish();
  }
  void cancel() { context_.TryCancel(); }
  /// Of a stream that has finished.
  std::map<std::string, std::string> trailing_metadata() const {
    std::map<std::string, std::string> metadata;
    for (const auto& [key, value] : context_.GetServerTrailingMetadata())
      metadata[std::string(key.data(), key.size())] = std::string(value.data(), value.size());
    return metadata;
  }

  v1::GenerateResponse message;
  v1::PromptInfo prompt;
  int num_prompts = 0;
  v1::Usage usage;
  std::vector<int32_t> tokens;
  std::string text;
  v1::FinishReason finish_reason = v1::FINISH_REASON_UNSPECIFIED;

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> reader_;
};

inline grpc::Status generate_once(TestCluster& cluster, const v1::GenerateRequest& request,
                                  v1::GenerateOnceResponse* response) {
  grpc::ClientContext context;
  set_patience(context);
  return cluster.inference->GenerateOnce(&context, request, response);
}

inline grpc::Status generate_once(TestCluster& cluster, const v1::GenerateRequest& request) {
  v1::GenerateOnceResponse response;
  return generate_once(cluster, request, &response);
}

inline std::string tokens_sent(const grpc::Status& status) {
  const auto info = rpc::error_info(status);
  if (!info || info->reason() != "REPLICA_LOST") return "no REPLICA_LOST";
  return info->metadata().at("tokens_sent");
}

}  // namespace trireme
