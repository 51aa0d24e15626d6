#pragma once
// The Inference service of a leader.

#include <chrono>
#include <cstddef>
#include <functional>

#include <grpcpp/grpcpp.h>

#include "engine/base/ticker.h"
#include "trireme/v1/inference.grpc.pb.h"
#include "worker/active_requests.h"
#include "worker/generate_call.h"
#include "worker/generate_reactors.h"
#include "worker/leader.h"
#include "worker/served_model.h"
#include "worker/task_pool.h"

namespace trireme::worker {

struct GenerateServiceOptions {
  int num_tokenizer_threads = 2;
  size_t max_queued_prompts = 256;                       // that wait to be tokenized
  size_t max_unread_bytes = Outbox::kDefaultLimitBytes;  // of one request; beyond it is cancelled
  std::chrono::milliseconds write_timeout{30'000};       // for a client to take one message; then likewise
};

/// Callback API. RPC threads only validate; text becomes tokens on a small pool. `model` and `leader` must
/// outlive it, and the server must have been shut down before it is destroyed.
class GenerateService final : public v1::Inference::CallbackService {
 public:
  GenerateService(const ServedModel& model, Leader& leader, GenerateServiceOptions options = {});

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

 private:
  grpc::Status check_text_request(const std::string& model) const;
  CallEnvironment environment() {
    return {model_, leader_, pool_, active_, streams_, options_.max_unread_bytes, options_.write_timeout};
  }
  /// Runs `work` on the pool and finishes the call with what it returns.
  grpc::ServerUnaryReactor* run_on_pool(grpc::CallbackServerContext* context,
                                        std::function<grpc::Status()> work);

  const ServedModel& model_;
  Leader& leader_;
  const GenerateServiceOptions options_;
  ActiveRequests active_;
  OpenStreams streams_;
  TaskPool pool_;
  Ticker ticker_;  // ends before the rest
};

}  // namespace trireme::worker
