#pragma once
// The Cluster service jobs and leaders call.

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <set>
#include <string>

#include "coordinator/membership.h"
#include "trireme/v1/cluster.grpc.pb.h"

namespace trireme {

struct ClusterOptions {
  int tensor_parallel_size = 0;  // for every job; 0: the job's wish, else the planner chooses
};

class ReplicaSession;

class ClusterService : public v1::Cluster::CallbackService {
 public:
  /// `complete` adds to GetCluster's answer what is known elsewhere (request counts).
  ClusterService(Membership& membership, const ClusterOptions& options,
                 std::function<void(v1::GetClusterResponse&)> complete);

  grpc::ServerUnaryReactor* JoinJob(grpc::CallbackServerContext* context, const v1::JoinJobRequest* request,
                                    v1::JoinJobResponse* response) override;
  grpc::ServerBidiReactor<v1::ReplicaReport, v1::ReplicaCommand>* ServeReplica(
      grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* GetCluster(grpc::CallbackServerContext* context,
                                       const v1::GetClusterRequest* request,
                                       v1::GetClusterResponse* response) override;

  /// GetCluster's answer.
  v1::GetClusterResponse status() const;
  /// New jobs and replicas get UNAVAILABLE from now on.
  void close();
  /// Tells every replica what is wanted of it.
  void command_all(v1::ReplicaState state);
  /// Ends every replica's stream from this side.
  void disconnect_all();
  /// Blocks until no replica is connected; false when that was not so before the time was over.
  bool wait_until_empty(std::chrono::milliseconds timeout);

 private:
  friend class ReplicaSession;
  void remove(ReplicaSession* session);
  absl::Status plan_job(const v1::JoinJobRequest& request, v1::JoinJobResponse& response) const;
  bool closed();

  Membership& membership_;
  const ClusterOptions options_;
  const std::function<void(v1::GetClusterResponse&)> complete_;
  std::mutex mutex_;  // never taken by a session that holds its own
  std::condition_variable empty_;
  std::set<ReplicaSession*> sessions_;
  bool closed_ = false;
};

}  // namespace trireme
