#pragma once

#include <memory>
#include <string>

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include "absl/status/statusor.h"

namespace trireme::client {

/// grpc.health.v1.Health.Check of the whole server: "SERVING", "NOT_SERVING", "UNKNOWN" or "SERVICE_UNKNOWN".
absl::StatusOr<std::string> check_health(const std::shared_ptr<grpc::Channel>& channel,
                                         grpc::ClientContext& context);

}  // namespace trireme::client
