#include "coordinator/replica_session.h"

#include <spdlog/spdlog.h>

#include "absl/strings/escaping.h"
#include "coordinator/join_request.h"
#include "proto/support/errors.h"

namespace trireme {

absl::Status ReplicaSession::enroll() {
  if (!report_.has_registration())
    return absl::InvalidArgumentError("registration: the first message must carry it");
  if (service_.closed()) return absl::UnavailableError("the coordinator is shutting down");
  const v1::ReplicaRegistration& registration = report_.registration();
  if (absl::Status status = check_registration(registration); !status.ok()) return status;
  const absl::StatusOr<std::string> address = replica_address(registration, peer_);
  if (!address.ok()) return address.status();
  const absl::StatusOr<LeaseId> lease = membership_.join(registration, *address);
  if (!lease.ok()) return lease.status();
  replica_id_ = registration.replica_id();
  bool gone;
  {
    std::lock_guard lock(mutex_);
    lease_ = *lease;
    gone = left_;
  }
  if (gone) {
    membership_.leave(*lease);
    return absl::CancelledError("its stream broke while it joined");
  }
  spdlog::info("replica {} joined: {}, tensor-parallel size {}, incarnation {}", replica_id_, *address,
               registration.tensor_parallel_size(), registration.incarnation());
  return absl::OkStatus();
}

void ReplicaSession::OnReadDone(bool ok) {
  if (!ok) {
    leave("its stream ended");
    end(grpc::Status::OK);
    return;
  }
  std::optional<LeaseId> lease;
  {
    std::lock_guard lock(mutex_);
    lease = lease_;
  }
  if (!lease) {
    if (const absl::Status status = enroll(); !status.ok()) {
      spdlog::warn("a replica at {} was refused: {}", peer_, absl::CEscape(status.message()));
      end(rpc::to_grpc(status));
      return;
    }
    lease = lease_;
    membership_.activate(*lease);  // first: a replica that hears SERVING can count on it
    command(v1::REPLICA_STATE_SERVING);
  }
  if (report_.has_load()) membership_.report(*lease, report_.load());
  if (report_.draining() || report_.drained()) membership_.drain(*lease);
  report_.Clear();
  std::lock_guard lock(mutex_);
  if (!final_status_) StartRead(&report_);
}

void ReplicaSession::send_locked(v1::ReplicaState state) {
  writing_ = true;
  command_.set_desired_state(state);
  StartWrite(&command_);
}

void ReplicaSession::command(v1::ReplicaState state) {
  std::lock_guard lock(mutex_);
  if (!lease_ || final_status_) return;
  if (writing_)
    next_ = state;
  else
    send_locked(state);
}

void ReplicaSession::OnWriteDone(bool ok) {
  std::lock_guard lock(mutex_);
  writing_ = false;
  if (final_status_) {
    Finish(*final_status_);
  } else if (ok && next_) {
    const v1::ReplicaState state = *next_;
    next_.reset();
    send_locked(state);
  }
}

void ReplicaSession::end(const grpc::Status& status) {
  std::lock_guard lock(mutex_);
  if (final_status_) return;
  final_status_ = status;
  if (!writing_) Finish(status);
}

void ReplicaSession::OnCancel() {
  leave("its connection broke");
  end(grpc::Status::CANCELLED);
}

void ReplicaSession::leave(const char* why) {
  std::optional<LeaseId> lease;
  {
    std::lock_guard lock(mutex_);
    if (left_) return;
    left_ = true;
    lease = lease_;
  }
  if (!lease) return;
  membership_.leave(*lease);
  spdlog::info("replica {} left: {}", replica_id_, why);
}

void ReplicaSession::OnDone() {
  leave("its stream was ended");
  service_.remove(this);
  delete this;
}

}  // namespace trireme
