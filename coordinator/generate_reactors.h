#pragma once
// The client's side of a relay: a stream, or one message.

#include <grpcpp/support/server_callback.h>

#include "coordinator/generate_call.h"
#include "trireme/v1/inference.grpc.pb.h"

namespace trireme {

/// Generate: each message is written on. Deletes itself.
class StreamReactor : public grpc::ServerWriteReactor<v1::GenerateResponse>, public GenerateSink {
 public:
  explicit StreamReactor(grpc::CallbackServerContext* context) : context_(context) {}
  /// Before the call starts.
  void attach(std::shared_ptr<GenerateCall> call) { call_ = std::move(call); }

  void write(const v1::GenerateResponse& message) override { StartWrite(&message); }
  void reset() override { context_->TryCancel(); }
  void finish(const grpc::Status& status, const RequestRecord::Metadata& receipt) override {
    for (const auto& [key, value] : receipt) context_->AddTrailingMetadata(key, value);
    Finish(status);
  }

 private:
  void OnWriteDone(bool ok) override { call_->on_written(ok); }
  void OnCancel() override {
    if (call_) call_->client_gone();
  }
  void OnDone() override { delete this; }

  grpc::CallbackServerContext* const context_;
  std::shared_ptr<GenerateCall> call_;  // null: refused
};

/// GenerateOnce: messages are collected. Deletes itself.
class OnceReactor : public grpc::ServerUnaryReactor, public GenerateSink {
 public:
  OnceReactor(grpc::CallbackServerContext* context, int num_samples, v1::GenerateOnceResponse* response)
      : context_(context), num_samples_(num_samples), response_(response) {}
  void attach(std::shared_ptr<GenerateCall> call) { call_ = std::move(call); }

  void write(const v1::GenerateResponse& message) override;
  void reset() override {}  // its writes are never open
  void finish(const grpc::Status& status, const RequestRecord::Metadata& receipt) override;

 private:
  void OnCancel() override {
    if (call_) call_->client_gone();
  }
  void OnDone() override { delete this; }

  grpc::CallbackServerContext* const context_;
  const int num_samples_;
  v1::GenerateOnceResponse* const response_;
  size_t collected_bytes_ = 0;
  bool too_large_ = false;
  std::shared_ptr<GenerateCall> call_;
};

}  // namespace trireme
