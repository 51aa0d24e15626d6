#pragma once
// The gRPC server of a leader.

#include <chrono>
#include <memory>

#include <grpcpp/grpcpp.h>

#include "absl/status/statusor.h"
#include "proto/support/endpoint.h"
#include "worker/generate_service.h"
#include "worker/leader.h"
#include "worker/served_model.h"

namespace trireme::worker {

/// Whether a server could listen there now: asked before a model is loaded for minutes. FAILED_PRECONDITION
/// for an open address without `insecure`, UNAVAILABLE when the port is in use.
absl::Status check_listen(const rpc::Address& listen, bool insecure);

/// Inference, grpc.health.v1 and reflection on one port. Not serving until it is told.
class ReplicaServer {
 public:
  /// Errors as check_listen(). `model` and `leader` must outlive it.
  static absl::StatusOr<std::unique_ptr<ReplicaServer>> start(const rpc::Address& listen, bool insecure,
                                                              const ServedModel& model, Leader& leader,
                                                              GenerateServiceOptions options = {});
  ~ReplicaServer();

  /// With the port that was bound.
  const rpc::Address& address() const { return address_; }
  /// What health checks are told, for the server as a whole and for the Inference service.
  void set_serving(bool serving);
  /// Takes no new calls, waits for running ones at most `grace`, then cancels them. Idempotent.
  void shutdown(std::chrono::milliseconds grace);

 private:
  ReplicaServer(const ServedModel& model, Leader& leader, GenerateServiceOptions options)
      : service_(model, leader, options) {}

  GenerateService service_;
  rpc::Address address_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace trireme::worker
