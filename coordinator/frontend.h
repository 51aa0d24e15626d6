#pragma once
// The Inference service clients call.

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <random>
#include <string>

#include <grpcpp/server_context.h>

#include "coordinator/active_requests.h"
#include "coordinator/membership.h"
#include "trireme/v1/inference.grpc.pb.h"

namespace trireme {

struct FrontendOptions {
  std::chrono::milliseconds max_request_time = std::chrono::hours(1);  // caps every deadline
  std::chrono::milliseconds max_unary_time = std::chrono::seconds(30);
  std::chrono::milliseconds retry_delay = std::chrono::seconds(1);  // told to clients while nobody serves
};

/// Validates, fixes what a resumption must find unchanged (request id, seed), chooses a replica and relays.
/// Every method answers without blocking. Prompts and outputs are never logged.
class Frontend : public v1::Inference::CallbackService {
 public:
  Frontend(Membership& membership, const FrontendOptions& options);

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(grpc::CallbackServerContext* context,
                                                           const v1::GenerateRequest* request) override;
  grpc::ServerUnaryReactor* GenerateOnce(grpc::CallbackServerContext* context,
                                         const v1::GenerateRequest* request,
                                         v1::GenerateOnceResponse* response) override;
  grpc::ServerUnaryReactor* Cancel(grpc::CallbackServerContext* context, const v1::CancelRequest* request,
                                   v1::CancelResponse* response) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context, const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override;
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context,
                                       const v1::DetokenizeRequest* request,
                                       v1::DetokenizeResponse* response) override;
  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context, const v1::GetModelRequest* request,
                                     v1::GetModelResponse* response) override;

  /// Ends the requests of a replica that is gone.
  void lose_replica(LeaseId lease);
  /// New requests get UNAVAILABLE with a retry delay.
  void close() { active_.close(); }
  bool wait_until_idle(std::chrono::milliseconds timeout) { return active_.wait_until_empty(timeout); }
  /// Ends what still runs with UNAVAILABLE; how many that were.
  int abort_all();

  int64_t num_requests() const { return num_requests_; }
  int64_t num_failed() const { return num_failed_; }  // by us or a replica, not by the client

 private:
  /// Everything before the relay starts. `call` is set when the status is OK.
  grpc::Status admit(grpc::CallbackServerContext* context, const v1::GenerateRequest& request,
                     GenerateSink& sink, std::shared_ptr<GenerateCall>* call);
  void launch(const std::shared_ptr<GenerateCall>& call);
  void ended(const GenerateCall& call, const grpc::Status& status);
  grpc::Status check_model(const std::string& model) const;
  grpc::Status nobody_serves() const;
  /// OK with an assignment, else why not.
  grpc::Status assign(const std::string& model, std::unique_ptr<Assignment>* assignment);
  uint64_t random_number();

  Membership& membership_;
  const FrontendOptions options_;
  ActiveRequests active_;
  std::atomic<int64_t> num_requests_{0};
  std::atomic<int64_t> num_failed_{0};
  std::mutex random_mutex_;
  std::mt19937_64 random_;
};

}  // namespace trireme
