#pragma once
// The requests of a load as gRPC calls.

#include <memory>
#include <mutex>
#include <string>
#include <unordered_set>
#include <vector>

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include "launch/client/load_generator.h"
#include "trireme/v1/inference.grpc.pb.h"

namespace trireme::client {

struct CallOptions {
  int num_connections = 1;  // requests take turns
  double timeout_s = 600;   // of each request
  float temperature = 0;
  std::string client;  // whose requests they are; empty: this host's
};

/// Generate calls on the callback API: no thread per request. Tokens are stamped when their message is read.
class GrpcLoadTarget final : public LoadTarget {
 public:
  GrpcLoadTarget(const std::string& address, const CallOptions& options);
  ~GrpcLoadTarget() override;

  /// GetModel on every connection, so that no request pays for connecting. The answer of the first.
  grpc::Status connect(v1::GetModelResponse& model);
  /// As many as a prompt of this text has.
  grpc::Status count_tokens(const std::string& text, int64_t& count);

  void start(const WorkItem& item, CallRecord& record, std::function<void()> on_done) override;
  void cancel_all() override;

 private:
  class Call;
  void remove(Call* call);

  const CallOptions options_;
  std::vector<std::unique_ptr<v1::Inference::Stub>> stubs_;
  std::mutex mutex_;
  std::unordered_set<Call*> calls_;
  size_t next_stub_ = 0;
  bool closed_ = false;
};

}  // namespace trireme::client
