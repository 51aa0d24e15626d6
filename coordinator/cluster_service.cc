#include "coordinator/cluster_service.h"

#include <spdlog/spdlog.h>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "coordinator/join_request.h"
#include "coordinator/replica_session.h"
#include "proto/support/errors.h"
#include "proto/support/job_layout.h"

namespace trireme {
namespace {

grpc::ServerUnaryReactor* answer(grpc::CallbackServerContext* context, const grpc::Status& status) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(status);
  return reactor;
}

grpc::Status shutting_down() {
  return rpc::retry_after(grpc::StatusCode::UNAVAILABLE, "the coordinator is shutting down",
                          std::chrono::seconds(1));
}

}  // namespace

ClusterService::ClusterService(Membership& membership, const ClusterOptions& options,
                               std::function<void(v1::GetClusterResponse&)> complete)
    : membership_(membership), options_(options), complete_(std::move(complete)) {}

absl::Status ClusterService::plan_job(const v1::JoinJobRequest& request,
                                      v1::JoinJobResponse& response) const {
  if (absl::Status status = check_join_request(request); !status.ok()) return status;
  if (absl::Status status = membership_.registry().check_model(model_identity(request.model())); !status.ok())
    return status;
  const int asked = request.wanted_tensor_parallel_size();
  const int here = options_.tensor_parallel_size;
  if (asked != 0 && here != 0 && asked != here)
    return absl::FailedPreconditionError(absl::StrCat("tensor-parallel size: the job asks for ", asked,
                                                      ", the coordinator was started with ", here));
  auto layout = rpc::plan_layout(request, here != 0 ? here : asked);
  if (layout.ok()) response = *std::move(layout);
  return layout.status();
}

grpc::ServerUnaryReactor* ClusterService::JoinJob(grpc::CallbackServerContext* context,
                                                  const v1::JoinJobRequest* request,
                                                  v1::JoinJobResponse* response) {
  if (closed()) return answer(context, shutting_down());
  const absl::Status status = plan_job(*request, *response);
  if (status.ok())
    spdlog::info("job {} of {} ranks: {} replicas, tensor-parallel size {}", request->job_id(),
                 request->ranks_size(), response->replicas_size(), response->tensor_parallel_size());
  else
    spdlog::warn("a job of {} ranks was refused: {}", request->ranks_size(), absl::CEscape(status.message()));
  return answer(context, rpc::to_grpc(status));
}

grpc::ServerBidiReactor<v1::ReplicaReport, v1::ReplicaCommand>* ClusterService::ServeReplica(
    grpc::CallbackServerContext* context) {
  auto* session = new ReplicaSession(*this, membership_, context->peer());
  {
    std::lock_guard lock(mutex_);
    sessions_.insert(session);
  }
  if (closed())
    session->end(shutting_down());
  else
    session->begin();
  return session;
}

grpc::ServerUnaryReactor* ClusterService::GetCluster(grpc::CallbackServerContext* context,
                                                     const v1::GetClusterRequest*,
                                                     v1::GetClusterResponse* response) {
  *response = status();
  return answer(context, grpc::Status::OK);
}

v1::GetClusterResponse ClusterService::status() const {
  v1::GetClusterResponse status;
  status.set_model(membership_.registry().model_name());
  for (v1::ReplicaStatus& replica : membership_.describe()) *status.add_replicas() = std::move(replica);
  complete_(status);
  return status;
}

void ClusterService::close() {
  std::lock_guard lock(mutex_);
  closed_ = true;
}

bool ClusterService::closed() {
  std::lock_guard lock(mutex_);
  return closed_;
}

void ClusterService::command_all(v1::ReplicaState state) {
  std::lock_guard lock(mutex_);
  for (ReplicaSession* session : sessions_) session->command(state);
}

void ClusterService::disconnect_all() {
  std::lock_guard lock(mutex_);
  for (ReplicaSession* session : sessions_) session->end(shutting_down());
}

void ClusterService::remove(ReplicaSession* session) {
  std::lock_guard lock(mutex_);
  sessions_.erase(session);
  if (sessions_.empty()) empty_.notify_all();
}

bool ClusterService::wait_until_empty(std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  return empty_.wait_for(lock, timeout, [this] { return sessions_.empty(); });
}

}  // namespace trireme
