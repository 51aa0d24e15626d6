#include "launch/client/null_server.h"

#include <algorithm>
#include <utility>

#include <grpcpp/grpcpp.h>

#include "proto/support/endpoint.h"
#include "trireme/v1/inference.grpc.pb.h"

namespace trireme::client {
namespace {

class NullStream final : public grpc::ServerWriteReactor<v1::GenerateResponse> {
 public:
  explicit NullStream(const v1::GenerateRequest& request)
      : num_tokens_(std::max(1, request.stopping().max_tokens())) {
    message_.mutable_prompt()->set_request_id(request.request_id());
    StartWrite(&message_);
  }

  void OnWriteDone(bool ok) override {
    if (!ok) return Finish(grpc::Status(grpc::StatusCode::CANCELLED, "the client is gone"));
    if (num_sent_ == 0) {
      message_.clear_prompt();
      message_.add_deltas()->add_token_ids(0);
    }
    message_.mutable_deltas(0)->set_token_ids(0, num_sent_ % 32000);
    if (++num_sent_ < num_tokens_) return StartWrite(&message_);
    message_.mutable_deltas(0)->set_finish_reason(v1::FINISH_REASON_LENGTH);
    message_.mutable_usage()->set_completion_tokens(num_tokens_);
    StartWriteAndFinish(&message_, {}, grpc::Status::OK);
  }
  void OnDone() override { delete this; }

 private:
  const int32_t num_tokens_;
  int32_t num_sent_ = 0;
  v1::GenerateResponse message_;
};

class NullService final : public v1::Inference::CallbackService {
  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(grpc::CallbackServerContext*,
                                                           const v1::GenerateRequest* request) override {
    return new NullStream(*request);
  }
  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context, const v1::GetModelRequest*,
                                     v1::GetModelResponse* response) override {
    response->set_name("null");
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
};

}  // namespace

struct NullServer::Impl {
  NullService service;
  int port = 0;
  std::unique_ptr<grpc::Server> server;
};

NullServer::NullServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

absl::StatusOr<std::unique_ptr<NullServer>> NullServer::start() {
  auto impl = std::make_unique<Impl>();
  grpc::ServerBuilder builder;
  const absl::Status status =
      rpc::configure_server(builder, {"127.0.0.1", 0}, /*insecure=*/false, &impl->port);
  if (!status.ok()) return status;
  builder.RegisterService(&impl->service);
  impl->server = builder.BuildAndStart();
  if (impl->server == nullptr) return absl::UnavailableError("the null server could not listen");
  return std::unique_ptr<NullServer>(new NullServer(std::move(impl)));
}

NullServer::~NullServer() {
  impl_->server->Shutdown(gpr_time_from_millis(0, GPR_TIMESPAN));
  impl_->server->Wait();
}

std::string NullServer::address() const { return "127.0.0.1:" + std::to_string(impl_->port); }

}  // namespace trireme::client
