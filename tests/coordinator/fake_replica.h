#pragma once
// Replicas made of nothing but their protocols: a server whose Generate is a script, and a leader's lease.

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "trireme/v1/cluster.grpc.pb.h"
#include "trireme/v1/inference.grpc.pb.h"

namespace trireme {

/// Of every wait in these tests: 20 s, times TRIREME_TEST_TIME_FACTOR (1 when unset) for slow machines.
extern const std::chrono::milliseconds kPatience;

/// Waits until `condition` holds, looking each millisecond; false when it never did.
bool eventually(const std::function<bool()>& condition);

/// An Inference service on a free port. Generate runs `script`; what it was asked is kept.
class FakeReplica : public v1::Inference::Service {
 public:
  using Writer = grpc::ServerWriter<v1::GenerateResponse>;
  using Script = std::function<grpc::Status(grpc::ServerContext&, const v1::GenerateRequest&, Writer&)>;

  explicit FakeReplica(Script script = nullptr);  // default: send_tokens(4)
  ~FakeReplica() override { stop(); }

  int port() const { return port_; }
  /// Breaks every connection, as the death of the process would. Idempotent.
  void stop();

  std::vector<v1::GenerateRequest> requests() const;
  std::vector<std::string> cancelled_ids() const;
  bool is_cancelled(const std::string& request_id) const;
  int num_running() const { return num_running_; }
  bool saw_cancelled_context() const { return saw_cancelled_context_; }

  grpc::Status Generate(grpc::ServerContext* context, const v1::GenerateRequest* request,
                        Writer* writer) override;
  grpc::Status Cancel(grpc::ServerContext* context, const v1::CancelRequest* request,
                      v1::CancelResponse* response) override;
  grpc::Status Tokenize(grpc::ServerContext* context, const v1::TokenizeRequest* request,
                        v1::TokenizeResponse* response) override;
  grpc::Status Detokenize(grpc::ServerContext* context, const v1::DetokenizeRequest* request,
                          v1::DetokenizeResponse* response) override;
  grpc::Status GetModel(grpc::ServerContext* context, const v1::GetModelRequest* request,
                        v1::GetModelResponse* response) override;

 private:
  Script script_;
  mutable std::mutex mutex_;
  std::vector<v1::GenerateRequest> requests_;
  std::vector<std::string> cancelled_ids_;
  std::atomic<int> num_running_{0};
  std::atomic<bool> saw_cancelled_context_{false};
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

/// Parts of scripts.
bool send_prompt(const v1::GenerateRequest& request, FakeReplica::Writer& writer);
bool send_token(FakeReplica::Writer& writer, int32_t token_id);
bool send_end(FakeReplica::Writer& writer, int num_tokens, v1::FinishReason reason);
/// Prompt, tokens 0 to n - 1 with text "t<i> ", end.
FakeReplica::Script send_tokens(int n);
/// What an engine does with a ResumeState: prompt, the tokens that are left of 0 to n - 1, end. What the
/// request has already must be the first of them. Samples that are finished stay so.
FakeReplica::Script continue_to(int n);
/// Prompt and n tokens, then nothing until the request is cancelled one way or the other.
FakeReplica::Script send_then_wait(FakeReplica*& self, int n);

v1::ModelInfo demo_model();
v1::ReplicaRegistration registration(const std::string& replica_id, int port);

/// A leader's ServeReplica stream.
class FakeLeader {
 public:
  FakeLeader(const std::string& coordinator, const v1::ReplicaRegistration& registration);
  ~FakeLeader() { hang_up(); }

  bool report(const v1::ReplicaReport& report) { return stream_->Write(report); }
  /// Waits for a command; nullopt when the stream ended first.
  bool was_told(v1::ReplicaState state);
  /// Closes the stream from this side; its status.
  grpc::Status hang_up();
  /// Waits for the other side to end it.
  grpc::Status ended();

 private:
  void read_commands();

  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Cluster::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::ReplicaReport, v1::ReplicaCommand>> stream_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<v1::ReplicaState> commands_;
  bool over_ = false;
  std::thread reader_;
  std::optional<grpc::Status> status_;
};

/// A context whose call ends within kPatience.
void set_patience(grpc::ClientContext& context);

}  // namespace trireme
