#include "coordinator/coordinator.h"

#include <mutex>

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <spdlog/spdlog.h>

#include "absl/strings/str_cat.h"
#include "coordinator/coordinator_metrics.h"

namespace trireme {
namespace {

constexpr std::chrono::seconds kAbortGrace{2};  // for streams that were ended to hear of it
constexpr std::chrono::seconds kStopGrace{2};   // for replicas to take STOP and hang up
constexpr std::chrono::seconds kCloseGrace{1};

/// Both are process-wide switches of gRPC that every server built afterwards obeys.
void enable_health_and_reflection() {
  static std::once_flag once;
  std::call_once(once, [] {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  });
}

auto deadline_in(std::chrono::milliseconds time) { return std::chrono::system_clock::now() + time; }

}  // namespace

Coordinator::Coordinator(const CoordinatorOptions& options)
    : options_(options),
      address_(options.listen),
      frontend_(membership_, options.frontend),
      cluster_(membership_, options.cluster,
               [this](v1::GetClusterResponse& response) { describe(response); }) {
  membership_.on_activation([this] { frontend_.replica_available(); });
  membership_.on_lease_end([this](LeaseId lease) { frontend_.lose_replica(lease); });
}

absl::StatusOr<std::unique_ptr<Coordinator>> Coordinator::start(const CoordinatorOptions& options) {
  enable_health_and_reflection();
  std::unique_ptr<Coordinator> coordinator(new Coordinator(options));
  if (absl::Status status = coordinator->start_metrics(); !status.ok()) return status;
  grpc::ServerBuilder builder;
  int port = 0;
  if (absl::Status status = rpc::configure_server(builder, options.listen, options.insecure, &port);
      !status.ok())
    return status;
  builder.RegisterService(&coordinator->frontend_);
  builder.RegisterService(&coordinator->cluster_);
  coordinator->server_ = builder.BuildAndStart();
  if (!coordinator->server_ || port == 0)
    return absl::UnavailableError(absl::StrCat("cannot listen on ", options.listen.text(),
                                               ": the port is in use, or the address is not "
                                               "one of this host"));
  coordinator->address_.port = port;
  coordinator->membership_.on_serving_change(
      [self = coordinator.get()](bool serving) { self->set_serving(serving); });
  return coordinator;
}

absl::Status Coordinator::start_metrics() {
  if (!options_.metrics_listen) return absl::OkStatus();
  auto endpoint = rpc::MetricsEndpoint::start(
      *options_.metrics_listen, options_.insecure,
      [this](rpc::MetricsPage& page) { fill_metrics(cluster_.status(), frontend_.metrics(), page); });
  if (endpoint.ok()) metrics_ = *std::move(endpoint);
  return endpoint.status();
}

Coordinator::~Coordinator() {
  metrics_.reset();
  if (!server_) return;
  frontend_.close();
  cluster_.close();
  frontend_.abort_all();
  cluster_.disconnect_all();
  server_->Shutdown(deadline_in(kCloseGrace));
  server_->Wait();
}

void Coordinator::set_serving(bool serving) {
  grpc::HealthCheckServiceInterface* health = server_->GetHealthCheckService();
  health->SetServingStatus("", serving);
  health->SetServingStatus("trireme.v1.Inference", serving);
}

void Coordinator::describe(v1::GetClusterResponse& response) const {
  const RequestCounts counts = frontend_.counts();
  response.set_requests_total(counts.accepted);
  response.set_requests_failed(counts.failed);
  response.set_requests_resumed(counts.resumed);
  response.set_requests_rejected(counts.rejected);
  response.set_requests_cancelled(counts.cancelled);
  response.set_requests_running(static_cast<int32_t>(counts.running));
  response.set_output_tokens(counts.output_tokens);
  response.set_metrics_address(metrics_address());
  response.set_version(TRIREME_VERSION);
  response.set_uptime_ms(
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - start_)
          .count());
}

int Coordinator::drain(std::chrono::milliseconds timeout) {
  frontend_.close();
  cluster_.close();
  membership_.drain_all();
  if (!options_.keep_replicas) cluster_.command_all(v1::REPLICA_STATE_DRAINING);
  int cut_off = 0;
  if (!frontend_.wait_until_idle(timeout)) {
    cut_off = frontend_.abort_all();
    spdlog::warn("{} requests were cut off after {} ms", cut_off, timeout.count());
    frontend_.wait_until_idle(kAbortGrace);
  }
  if (!options_.keep_replicas) {
    cluster_.command_all(v1::REPLICA_STATE_STOP);
    cluster_.wait_until_empty(kStopGrace);
  }
  return cut_off;
}

}  // namespace trireme
