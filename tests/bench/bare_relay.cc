#include "tests/bench/bare_relay.h"

#include <algorithm>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "kernels/check.h"
#include "proto/support/endpoint.h"
#include "trireme/v1/inference.grpc.pb.h"

namespace trireme::bench {
namespace {

/// One stream of the bare server. Whoever holds `mutex` may write; `over` comes once.
class BareStream final : public grpc::ServerWriteReactor<v1::GenerateResponse> {
 public:
  explicit BareStream(int index) : index_(index) { message_.add_deltas()->add_token_ids(0); }

  bool ready(const Pace& pace) {
    const std::lock_guard lock(mutex_);
    return !writing_ && !over_ && pace.may_send(index_, sent_);
  }
  void send() {
    const std::lock_guard lock(mutex_);
    if (writing_ || over_) return;
    writing_ = true;
    message_.mutable_deltas(0)->set_token_ids(0, static_cast<int32_t>(sent_++ % 32000));
    StartWrite(&message_);
  }
  bool over() {
    const std::lock_guard lock(mutex_);
    return over_;
  }

 private:
  void OnWriteDone(bool ok) override {
    const std::lock_guard lock(mutex_);
    writing_ = false;
    if (!ok) end();
  }
  void OnCancel() override {
    const std::lock_guard lock(mutex_);
    if (!writing_) end();
  }
  void OnDone() override { self_.reset(); }
  void end() {
    if (std::exchange(over_, true)) return;
    Finish(grpc::Status::CANCELLED);
  }

 public:
  std::shared_ptr<BareStream> self_;

 private:
  const int index_;
  std::mutex mutex_;
  uint32_t sent_ = 0;
  bool writing_ = false, over_ = false;
  v1::GenerateResponse message_;
};

class BareServer final : public v1::Inference::CallbackService {
 public:
  explicit BareServer(Pace& pace) : pace_(pace) {}

  /// Steps like a leader's loop, and nothing else.
  [[noreturn]] void step_for_ever() {
    std::vector<std::shared_ptr<BareStream>> streams, ready;
    for (;;) {
      {
        const std::lock_guard lock(mutex_);
        streams.insert(streams.end(), arrived_.begin(), arrived_.end());
        arrived_.clear();
      }
      const uint32_t seen = pace_.ticks();
      std::erase_if(streams, [](const auto& stream) { return stream->over(); });
      ready.clear();
      std::copy_if(streams.begin(), streams.end(), std::back_inserter(ready),
                   [this](const auto& stream) { return stream->ready(pace_); });
      if (ready.size() < std::min(static_cast<size_t>(pace_.batch()), streams.size()) || streams.empty()) {
        pace_.wait(seen, std::chrono::microseconds(500));
        if (ready.empty() || pace_.ticks() != seen) continue;
      }
      for (const auto& stream : ready) stream->send();
    }
  }

 private:
  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(grpc::CallbackServerContext*,
                                                           const v1::GenerateRequest* request) override {
    auto stream = std::make_shared<BareStream>(request->token_ids().ids(0));
    stream->self_ = stream;
    const std::lock_guard lock(mutex_);
    arrived_.push_back(stream);
    return stream.get();
  }

  Pace& pace_;
  std::mutex mutex_;
  std::vector<std::shared_ptr<BareStream>> arrived_;
};

/// Both halves of one relayed call: read, write, read, ... A hold keeps the upstream half until its last
/// read.
class BareCall final : public grpc::ServerWriteReactor<v1::GenerateResponse> {
 public:
  BareCall(v1::Inference::Stub& stub, const v1::GenerateRequest& request)
      : upstream_(*this), request_(request) {
    stub.async()->Generate(&context_, &request_, &upstream_);
    upstream_.AddHold();
    upstream_.StartRead(&message_);
    upstream_.StartCall();
  }

 private:
  class Upstream final : public grpc::ClientReadReactor<v1::GenerateResponse> {
   public:
    explicit Upstream(BareCall& call) : call_(call) {}
    void OnReadDone(bool ok) override { ok ? call_.StartWrite(&call_.message_) : RemoveHold(); }
    void OnDone(const grpc::Status& status) override { call_.Finish(status); }
    BareCall& call_;
  };

  void OnWriteDone(bool ok) override {
    if (!ok) context_.TryCancel();
    upstream_.StartRead(&message_);
  }
  void OnCancel() override { context_.TryCancel(); }
  void OnDone() override { delete this; }

  Upstream upstream_;
  grpc::ClientContext context_;
  v1::GenerateRequest request_;
  v1::GenerateResponse message_;
};

class BareRelay final : public v1::Inference::CallbackService {
 public:
  explicit BareRelay(int port)
      : stub_(v1::Inference::NewStub(rpc::create_channel("127.0.0.1:" + std::to_string(port)))) {}

 private:
  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(grpc::CallbackServerContext*,
                                                           const v1::GenerateRequest* request) override {
    return new BareCall(*stub_, *request);
  }
  std::unique_ptr<v1::Inference::Stub> stub_;
};

/// With the settings that ours have.
std::unique_ptr<grpc::Server> serve(grpc::Service& service, Pace& pace) {
  grpc::ServerBuilder builder;
  int port = 0;
  CHECK_EQ(rpc::configure_server(builder, {"127.0.0.1", 0}, /*insecure=*/false, &port).ok(), true);
  builder.RegisterService(&service);
  auto server = builder.BuildAndStart();
  CHECK_GT(port, 0);
  pace.port = port;
  return server;
}

}  // namespace

void run_bare_server(Pace& pace) {
  BareServer service(pace);
  const auto server = serve(service, pace);
  service.step_for_ever();
}

void run_bare_relay(Pace& pace, int server_port) {
  BareRelay service(server_port);
  const auto server = serve(service, pace);
  server->Wait();
  _exit(0);
}

}  // namespace trireme::bench
