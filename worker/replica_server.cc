#include "worker/replica_server.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <mutex>
#include <string>
#include <system_error>

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>

#include "absl/strings/str_cat.h"

namespace trireme::worker {

namespace {

absl::Status cannot_listen(const rpc::Address& listen, const std::string& reason) {
  return absl::UnavailableError(absl::StrCat("cannot listen on ", listen.text(), ": ", reason));
}

}  // namespace

absl::Status check_listen(const rpc::Address& listen, bool insecure) {
  grpc::ServerBuilder builder;
  int port = 0;
  if (auto status = rpc::configure_server(builder, listen, insecure, &port); !status.ok()) return status;
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int error = ::getaddrinfo(listen.host.c_str(), std::to_string(listen.port).c_str(), &hints, &found);
  if (error != 0) return cannot_listen(listen, ::gai_strerror(error));
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> addresses(found, ::freeaddrinfo);
  std::string reason = "it has no address";
  for (const addrinfo* address = found; address != nullptr; address = address->ai_next) {
    const int socket = ::socket(address->ai_family, address->ai_socktype | SOCK_CLOEXEC, 0);
    if (socket < 0) continue;
    const int on = 1;
    ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));  // as gRPC does
    const bool bound = ::bind(socket, address->ai_addr, address->ai_addrlen) == 0 && ::listen(socket, 1) == 0;
    if (!bound) reason = std::generic_category().message(errno);
    ::close(socket);
    if (bound) return absl::OkStatus();
  }
  return cannot_listen(listen, reason);
}

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
