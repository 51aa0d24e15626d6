#pragma once
// A Generate request on its way: the call to the replica, joined by a Relay to whoever asked.

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>

#include "coordinator/membership.h"
#include "coordinator/relay.h"
#include "coordinator/transcript.h"
#include "trireme/v1/inference.grpc.pb.h"

namespace trireme {

/// Where messages are passed on to.
class GenerateSink {
 public:
  virtual ~GenerateSink() = default;
  /// Answered by GenerateCall::on_written(), when the next message may come. `message` stays until then.
  virtual void write(const v1::GenerateResponse& message) = 0;
  /// Once, last.
  virtual void finish(const grpc::Status& status) = 0;
};

/// Make it with std::make_shared; it keeps itself alive until the call to the replica has ended. Thread-safe.
class GenerateCall : public std::enable_shared_from_this<GenerateCall>,
                     private RelayStreams,
                     private grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  /// `request` has its id and seed. `on_end` is called once, before the sink hears of the end.
  GenerateCall(v1::GenerateRequest request, std::unique_ptr<Assignment> assignment, gpr_timespec deadline,
               GenerateSink& sink, std::function<void(const GenerateCall&, const grpc::Status&)> on_end);

  void start();
  void on_written(bool ok) { relay_.on_written(ok); }
  void client_gone() { relay_.end(RelayEnd::client_gone); }
  void replica_lost() { relay_.end(RelayEnd::replica_lost); }
  void abort() { relay_.end(RelayEnd::aborted); }
  /// Asks the replica to end the request, which then ends its stream; where it cannot be asked the call to it
  /// is cancelled. `done` is called when the replica knows.
  void cancel_request(gpr_timespec deadline, std::function<void()> done);

  const std::string& request_id() const { return request_.request_id(); }
  LeaseId lease() const { return assignment_->link().lease; }
  const std::string& replica_id() const { return assignment_->link().registration.replica_id(); }
  RelayEnd cause() const { return relay_.cause(); }
  int64_t num_tokens() const { return transcript_.num_tokens(); }  // after the end only

 private:
  void read() override;
  void write() override;
  void cancel() override { context_.TryCancel(); }
  void release() override { RemoveHold(); }
  void finish(RelayEnd end) override;
  void OnReadDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

  void note_arrival();
  /// What is passed on, and only that. False when it cannot be.
  bool record(const v1::GenerateResponse& message);
  grpc::Status final_status(RelayEnd end) const;
  grpc::Status lost(const std::string& why) const;

  const v1::GenerateRequest request_;
  const std::unique_ptr<Assignment> assignment_;
  GenerateSink& sink_;
  const std::function<void(const GenerateCall&, const grpc::Status&)> on_end_;
  grpc::ClientContext context_;
  Relay relay_;
  v1::GenerateResponse message_;  // the one message that is held
  Transcript transcript_;
  bool has_usage_ = false;
  grpc::Status upstream_status_;
  std::shared_ptr<GenerateCall> self_;  // from start() to the end

  std::mutex cancel_mutex_;
  bool cancel_requested_ = false;
  bool has_message_ = false;
};

}  // namespace trireme
