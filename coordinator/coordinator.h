#pragma once
// The coordinator as a whole: both services, health and reflection behind one port.

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include <grpcpp/server.h>

#include "absl/status/statusor.h"
#include "coordinator/cluster_service.h"
#include "coordinator/frontend.h"
#include "coordinator/membership.h"
#include "proto/support/endpoint.h"
#include "proto/support/metrics_endpoint.h"

namespace trireme {

struct CoordinatorOptions {
  rpc::Address listen{"127.0.0.1", 50051};     // port 0: any free one
  std::optional<rpc::Address> metrics_listen;  // for Prometheus; none when unset
  bool insecure = false;                       // accept an address that is not loopback
  bool keep_replicas = false;  // leave replicas running when this ends; they join the next one
  FrontendOptions frontend;
  ClusterOptions cluster;
};

class Coordinator {
 public:
  /// Listens when it returns. UNAVAILABLE when the port is in use, FAILED_PRECONDITION for an open address.
  static absl::StatusOr<std::unique_ptr<Coordinator>> start(const CoordinatorOptions& options);
  ~Coordinator();

  std::string address() const { return address_.text(); }
  /// host:port of the Prometheus endpoint; empty: none.
  std::string metrics_address() const { return metrics_ ? metrics_->address().text() : ""; }

  /// Refuses what is new, lets what runs finish for at most `timeout`, then ends it and stops the replicas.
  /// Health says NOT_SERVING from the start. Returns the number of requests that were cut off. Once.
  int drain(std::chrono::milliseconds timeout);

 private:
  explicit Coordinator(const CoordinatorOptions& options);
  absl::Status start_metrics();
  void set_serving(bool serving);
  void describe(v1::GetClusterResponse& response) const;

  const CoordinatorOptions options_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  rpc::Address address_;
  Membership membership_;
  Frontend frontend_;
  ClusterService cluster_;
  std::unique_ptr<rpc::MetricsEndpoint> metrics_;  // ends before the rest, starts before the server
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace trireme
