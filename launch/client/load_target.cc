#include "launch/client/load_target.h"

#include <algorithm>
#include <utility>

#include <grpcpp/support/client_callback.h>

#include "kernels/check.h"
#include "launch/client/connection.h"
#include "proto/support/endpoint.h"

namespace trireme::client {

class GrpcLoadTarget::Call final : public grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  Call(GrpcLoadTarget& target, CallRecord& record, std::function<void()> on_done)
      : target_(target), record_(record), on_done_(std::move(on_done)) {}

  /// Deletes itself at its end.
  void begin(v1::Inference::Stub& stub, const WorkItem& item) {
    if (item.text.empty()) {
      request_.mutable_token_ids()->mutable_ids()->Assign(item.prompt_ids.begin(), item.prompt_ids.end());
    } else {
      request_.set_text(item.text);
    }
    request_.mutable_sampling()->set_temperature(target_.options_.temperature);
    request_.mutable_sampling()->set_seed(item.seed);
    request_.mutable_stopping()->set_max_tokens(item.output_tokens);
    request_.mutable_stopping()->set_ignore_eos(true);
    set_deadline(context_, target_.options_.timeout_s);
    name_client(context_, target_.options_.client);
    stub.async()->Generate(&context_, &request_, this);
    StartRead(&message_);
    StartCall();
  }
  void cancel() { context_.TryCancel(); }

 private:
  void OnReadDone(bool ok) override {
    if (!ok) return;
    const LoadTime now = LoadTime::clock::now();
    int32_t num_tokens = 0;
    for (const v1::Delta& delta : message_.deltas()) num_tokens += delta.token_ids_size();
    if (num_tokens > 0) record_.arrivals.push_back({now, num_tokens});
    record_.num_tokens += num_tokens;
    if (message_.has_usage()) {
      record_.prompt_tokens = message_.usage().prompt_tokens();
      record_.cached_tokens = message_.usage().cached_tokens();
    }
    StartRead(&message_);
  }
  void OnDone(const grpc::Status& status) override {
    record_.ended = LoadTime::clock::now();
    record_.status = status;
    target_.remove(this);
    const auto on_done = std::move(on_done_);
    delete this;
    on_done();  // the target may be gone when it returns
  }

  GrpcLoadTarget& target_;
  CallRecord& record_;
  std::function<void()> on_done_;
  grpc::ClientContext context_;
  v1::GenerateRequest request_;
  v1::GenerateResponse message_;
};

GrpcLoadTarget::GrpcLoadTarget(const std::string& address, const CallOptions& options) : options_(options) {
  CHECK_GE(options.num_connections, 1);
  for (int i = 0; i < options.num_connections; ++i)
    stubs_.push_back(v1::Inference::NewStub(rpc::create_channel(address)));
}

GrpcLoadTarget::~GrpcLoadTarget() { CHECK_EQ(calls_.size(), size_t{0}); }

grpc::Status GrpcLoadTarget::connect(v1::GetModelResponse& model) {
  for (size_t i = 0; i < stubs_.size(); ++i) {
    grpc::ClientContext context;
    v1::GetModelResponse other;
    set_deadline(context, std::min(options_.timeout_s, 20.0));
    const grpc::Status status = stubs_[i]->GetModel(&context, {}, i == 0 ? &model : &other);
    if (!status.ok()) return status;
  }
  return grpc::Status::OK;
}

grpc::Status GrpcLoadTarget::count_tokens(const std::string& text, int64_t& count) {
  grpc::ClientContext context;
  set_deadline(context, std::min(options_.timeout_s, 20.0));
  v1::TokenizeRequest request;
  request.set_text(text);
  v1::TokenizeResponse response;
  const grpc::Status status = stubs_[0]->Tokenize(&context, request, &response);
  count = response.token_ids_size();
  return status;
}

void GrpcLoadTarget::start(const WorkItem& item, CallRecord& record, std::function<void()> on_done) {
  Call* call = nullptr;
  v1::Inference::Stub* stub = nullptr;
  {
    const std::lock_guard lock(mutex_);
    if (!closed_) {
      call = new Call(*this, record, on_done);
      calls_.insert(call);
      stub = stubs_[next_stub_++ % stubs_.size()].get();
    }
  }
  if (call != nullptr) return call->begin(*stub, item);
  record.ended = LoadTime::clock::now();
  record.status = grpc::Status(grpc::StatusCode::CANCELLED, "not sent");
  on_done();
}

void GrpcLoadTarget::cancel_all() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  for (Call* call : calls_) call->cancel();
}

void GrpcLoadTarget::remove(Call* call) {
  const std::lock_guard lock(mutex_);
  calls_.erase(call);
}

}  // namespace trireme::client
