#pragma once
// The Inference service clients call.

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <random>
#include <string>

#include <grpcpp/server_context.h>

#include "coordinator/active_requests.h"
#include "coordinator/membership.h"
#include "coordinator/request_record.h"
#include "engine/base/request_limits.h"
#include "engine/base/ticker.h"
#include "trireme/v1/inference.grpc.pb.h"

namespace trireme {

struct FrontendOptions {
  std::chrono::milliseconds max_request_time = std::chrono::hours(1);  // caps every deadline
  std::chrono::milliseconds max_unary_time = std::chrono::seconds(30);
  std::chrono::milliseconds retry_delay = std::chrono::seconds(1);  // told to clients while nobody serves
  RequestOptions request;
  RequestLimits limits;  // but for vocabulary and context, which are the replicas'
};

/// What became of the requests since the start.
struct RequestCounts {
  int64_t accepted = 0;       // and relayed
  int64_t rejected = 0;       // before a replica was chosen
  int64_t running = 0;        // being relayed now
  int64_t failed = 0;         // by the service, not by the client
  int64_t cancelled = 0;      // by Cancel, a client that left, or a deadline
  int64_t resumed = 0;        // continued on another replica
  int64_t output_tokens = 0;  // passed on; counted as requests end
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

  /// The requests of a replica that is gone go on elsewhere, or end.
  void lose_replica(LeaseId lease);
  /// A replica takes requests from now on, those that wait for one first of all.
  void replica_available();
  /// New requests get UNAVAILABLE with a retry delay; what has lost its replica waits for no other.
  void close();
  bool wait_until_idle(std::chrono::milliseconds timeout) { return active_.wait_until_empty(timeout); }
  /// Ends what still runs with UNAVAILABLE; how many that were.
  int abort_all();

  RequestCounts counts() const;
  const RelayMetrics& metrics() const { return metrics_; }

 private:
  /// Everything before the relay starts. `call` is set when the status is OK.
  grpc::Status admit(grpc::CallbackServerContext* context, const v1::GenerateRequest& request,
                     GenerateSink& sink, std::shared_ptr<GenerateCall>* call);
  /// What a resumption must find unchanged.
  void fix(v1::GenerateRequest& request);
  /// Counts it.
  grpc::Status refuse(const grpc::Status& status);
  void ended(const GenerateCall& call, const grpc::Status& status);
  grpc::Status check_model(const std::string& model) const;
  grpc::Status nobody_serves() const;
  /// OK with an assignment, else why not.
  grpc::Status assign(const std::string& model, const RouteWish& wish,
                      std::unique_ptr<Assignment>* assignment);
  uint64_t random_number();

  Membership& membership_;
  const FrontendOptions options_;
  RelayMetrics metrics_;
  ActiveRequests active_;
  mutable std::mutex counts_mutex_;
  RequestCounts counts_;
  std::mutex random_mutex_;
  std::mt19937_64 random_;
  Ticker ticker_;  // ends before the rest
};

}  // namespace trireme
