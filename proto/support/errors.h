#pragma once
// gRPC statuses with google.rpc details.

#include <chrono>
#include <map>
#include <optional>
#include <string>

#include <grpcpp/support/status.h>

#include "absl/status/status.h"
#include "google/rpc/error_details.pb.h"

namespace trireme::rpc {

/// "OK", "CANCELLED", ...: as gRPC spells them; CODE_n for a number that is none.
std::string code_name(grpc::StatusCode code);

/// Codes are equal by value; the message is kept.
grpc::Status to_grpc(const absl::Status& status);
absl::Status from_grpc(const grpc::Status& status);

/// INVALID_ARGUMENT with a BadRequest detail naming the field.
grpc::Status invalid_field(const std::string& field, const std::string& description);
/// `code` with a RetryInfo detail (UNAVAILABLE, RESOURCE_EXHAUSTED).
grpc::Status retry_after(grpc::StatusCode code, const std::string& message, std::chrono::milliseconds delay);
/// `code` with an ErrorInfo detail of domain "trireme"; `metadata` e.g. {"tokens_sent", "17"}.
grpc::Status with_info(grpc::StatusCode code, const std::string& message, const std::string& reason,
                       const std::map<std::string, std::string>& metadata);
/// NOT_FOUND with a ResourceInfo detail.
grpc::Status unknown_resource(const std::string& type, const std::string& name, const std::string& message);

/// Details of a received status; nullopt where there is none of the kind, or the bytes are not one.
std::optional<google::rpc::BadRequest> bad_request(const grpc::Status& status);
std::optional<google::rpc::RetryInfo> retry_info(const grpc::Status& status);
std::optional<google::rpc::ErrorInfo> error_info(const grpc::Status& status);

}  // namespace trireme::rpc
