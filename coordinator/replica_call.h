#pragma once
// One attempt at a Generate request: the call to one replica, joined by a Relay to whoever asked.

#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>

#include "coordinator/membership.h"
#include "coordinator/relay.h"
#include "coordinator/request_record.h"
#include "trireme/v1/inference.grpc.pb.h"

namespace trireme {

/// What a ReplicaCall works for. One call at a time.
class ReplicaCallOwner {
 public:
  virtual ~ReplicaCallOwner() = default;
  /// Takes a message, which stays until ReplicaCall::on_written() answers; may change it.
  virtual void pass_on(v1::GenerateResponse& message) = 0;
  /// Once, last. `status` counts where the cause is `upstream`.
  virtual void on_call_ended(RelayEnd cause, const grpc::Status& status) = 0;
};

/// Make it with std::make_shared; it keeps itself alive from start() to the end. Thread-safe but for start().
class ReplicaCall : public std::enable_shared_from_this<ReplicaCall>,
                    private RelayStreams,
                    private grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  ReplicaCall(std::unique_ptr<Assignment> assignment, gpr_timespec deadline, ReplicaCallOwner& owner);

  /// `request` and the owner stay until the end. The replica is told whose request it is, and on how many
  /// others it was lost before.
  void start(const v1::GenerateRequest& request, const std::string& client, int num_resumes);
  void on_written(bool ok) { relay_.on_written(ok); }
  void end(RelayEnd cause) { relay_.end(cause); }
  RelayEnd cause() const { return relay_.cause(); }
  /// Asks the replica to end the request, which then ends its stream; where it cannot be asked the call to it
  /// is cancelled. `done` is called when the replica knows.
  void cancel_request(const std::string& request_id, gpr_timespec deadline, std::function<void()> done);

  const ReplicaLink& link() const { return assignment_->link(); }
  const std::string& replica_id() const { return link().registration.replica_id(); }
  // After the end only:
  /// Whether the replica sent anything.
  bool has_message() const { return has_message_; }
  /// The replica's part of the receipt, as far as it is plausible.
  RequestRecord::Metadata receipt() const;

 private:
  void read() override { StartRead(&message_); }
  void write() override { owner_.pass_on(message_); }
  void cancel() override { context_.TryCancel(); }
  void release() override { RemoveHold(); }
  void finish(RelayEnd end) override;
  void OnReadDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

  void note_arrival();

  const std::unique_ptr<Assignment> assignment_;
  ReplicaCallOwner& owner_;
  std::string request_id_;
  grpc::ClientContext context_;
  Relay relay_;
  v1::GenerateResponse message_;  // the one message that is held
  grpc::Status status_;
  std::shared_ptr<ReplicaCall> self_;

  std::mutex cancel_mutex_;
  bool cancel_requested_ = false;
  bool has_message_ = false;
};

}  // namespace trireme
