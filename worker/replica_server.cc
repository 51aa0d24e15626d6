#include "worker/replica_server.h"

#include <mutex>

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>

#include "absl/strings/str_cat.h"

namespace trireme::worker {

absl::StatusOr<std::unique_ptr<ReplicaServer>> ReplicaServer::start(const rpc::Address& listen, bool insecure,
                                                                    const ServedModel& model, Leader& leader,
                                                                    GenerateServiceOptions options) {
  static std::once_flag once;  // both are switches of the whole process
  std::call_once(once, [] {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  });
  std::unique_ptr<ReplicaServer> server(new ReplicaServer(model, leader, options));
  server->address_ = listen;
  grpc::ServerBuilder builder;
  int port = 0;
  if (auto status = rpc::configure_server(builder, listen, insecure, &port); !status.ok()) return status;
  builder.RegisterService(&server->service_);
  server->server_ = builder.BuildAndStart();
  if (server->server_ == nullptr || port == 0) {
    server->server_.reset();
    return absl::UnavailableError(absl::StrCat("cannot listen on ", listen.text(),
                                               ": the port is in use or the address is not this host's"));
  }
  server->address_.port = port;
  server->set_serving(false);
  return server;
}

ReplicaServer::~ReplicaServer() { shutdown(std::chrono::milliseconds(0)); }

void ReplicaServer::set_serving(bool serving) {
  grpc::HealthCheckServiceInterface* health = server_->GetHealthCheckService();
  health->SetServingStatus(serving);
  health->SetServingStatus(v1::Inference::service_full_name(), serving);
}

void ReplicaServer::shutdown(std::chrono::milliseconds grace) {
  if (server_ == nullptr) return;  // it never started
  server_->Shutdown(gpr_time_from_millis(grace.count(), GPR_TIMESPAN));
  server_->Wait();
}

}  // namespace trireme::worker
