#pragma once
// The gRPC ends of GenerateCall. Each keeps itself alive until gRPC is done with it.

#include <chrono>
#include <memory>
#include <mutex>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "trireme/v1/inference.pb.h"
#include "worker/generate_call.h"

namespace trireme::worker {

/// Generate: one write in flight; what comes meanwhile is coalesced into the next message. Unwritten bytes
/// count against the outbox's limit. A write counts as done when gRPC has taken it: it holds what HTTP/2's
/// windows and the sockets' buffers on the way hold, 2 to 4 MB for each hop, before a write waits. A write
/// that waits longer than the timeout ends the request, the last one too.
class StreamCall final : public grpc::ServerWriteReactor<v1::GenerateResponse>, public GenerateCall {
 public:
  static StreamCall* start(const CallEnvironment& environment, grpc::CallbackServerContext* context,
                           const v1::GenerateRequest& message);
  StreamCall(const CallEnvironment& environment, grpc::CallbackServerContext* context)
      : GenerateCall(environment), write_timeout_(environment.write_timeout), context_(context) {}

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;
  /// Any thread, now and then.
  void tick(std::chrono::steady_clock::time_point now);

 protected:
  void flush() override;
  void reset_stream() override { context_->TryCancel(); }

 private:
  /// With mutex_ held. True when that has ended the call.
  bool end_if_late(std::chrono::steady_clock::time_point now);
  void write_next();
  void account();

  const std::chrono::milliseconds write_timeout_;
  grpc::CallbackServerContext* const context_;
  std::shared_ptr<StreamCall> self_;
  v1::GenerateResponse message_;
  size_t writing_bytes_ = 0;
  size_t held_bytes_ = 0;
  bool writing_ = false;
  std::chrono::steady_clock::time_point write_began_;  // while writing_, and of a write that finishes
  bool ended_ = false;                                 // Finish, or a write that finishes, was called
  bool done_ = false;                                  // nothing is on its way any more, and no context
};

/// The streams that are written to, for their time limit. Any thread.
class OpenStreams {
 public:
  void add(std::weak_ptr<StreamCall> stream);
  void tick(std::chrono::steady_clock::time_point now);

 private:
  std::mutex mutex_;
  std::vector<std::weak_ptr<StreamCall>> streams_;
};

/// GenerateOnce: the same, gathered into one message.
class OnceCall final : public grpc::ServerUnaryReactor, public GenerateCall {
 public:
  static OnceCall* start(const CallEnvironment& environment, grpc::CallbackServerContext* context,
                         const v1::GenerateRequest& message, v1::GenerateOnceResponse* response);
  OnceCall(const CallEnvironment& environment, grpc::CallbackServerContext* context,
           v1::GenerateOnceResponse* response)
      : GenerateCall(environment), context_(context), response_(response) {}

  void OnCancel() override;
  void OnDone() override;

 protected:
  void flush() override;
  void reset_stream() override {}

 private:
  grpc::CallbackServerContext* const context_;
  v1::GenerateOnceResponse* const response_;
  std::shared_ptr<OnceCall> self_;
  bool ended_ = false;
};

}  // namespace trireme::worker
