#pragma once
// One ServeReplica stream: a replica's life under this coordinator.

#include <mutex>
#include <optional>
#include <string>

#include <grpcpp/support/server_callback.h>

#include "coordinator/cluster_service.h"

namespace trireme {

/// The first message registers, later ones report load; commands go out one at a time, and of several that
/// wait only the last. The end of the stream, however it comes, ends the lease. Deletes itself.
class ReplicaSession : public grpc::ServerBidiReactor<v1::ReplicaReport, v1::ReplicaCommand> {
 public:
  ReplicaSession(ClusterService& service, Membership& membership, std::string peer)
      : service_(service), membership_(membership), peer_(std::move(peer)) {}

  void begin() { StartRead(&report_); }
  /// Thread-safe, like end(). Ignored before registration and after the end.
  void command(v1::ReplicaState state);
  void end(const grpc::Status& status);

 private:
  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

  absl::Status enroll();
  void leave(const char* why);
  void send_locked(v1::ReplicaState state);

  ClusterService& service_;
  Membership& membership_;
  const std::string peer_;
  v1::ReplicaReport report_;
  std::string replica_id_;

  std::mutex mutex_;
  std::optional<LeaseId> lease_;
  bool left_ = false;
  bool writing_ = false;
  v1::ReplicaCommand command_;                // being written
  std::optional<v1::ReplicaState> next_;      // to write then
  std::optional<grpc::Status> final_status_;  // set: no new writes; finished when none is open
};

}  // namespace trireme
