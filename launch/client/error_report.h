#pragma once
// A failed call as one line for people, an object for programs, and an exit code.

#include <string>

#include <grpcpp/support/status.h>
#include <nlohmann/json.hpp>

namespace trireme::client {

/// "INVALID_ARGUMENT", ...; "CODE_<n>" for a number gRPC does not define.
std::string code_name(grpc::StatusCode code);
/// Code, message, and what the google.rpc details say: the field, the retry delay, tokens already sent.
std::string describe(const grpc::Status& status);
/// {code, message, field, description, retry_delay_ms, reason, metadata}; what is not known is absent.
nlohmann::json error_json(const grpc::Status& status);
int exit_code_for(const grpc::Status& status);
/// Prints "trireme: " and the line to stderr; returns the exit code.
int report_error(const grpc::Status& status, const std::string& address);

}  // namespace trireme::client
