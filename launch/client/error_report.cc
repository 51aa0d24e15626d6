#include "launch/client/error_report.h"

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "launch/client/commands.h"
#include "proto/support/errors.h"

namespace trireme::client {
namespace {

int64_t milliseconds(const google::protobuf::Duration& duration) {
  return duration.seconds() * 1000 + duration.nanos() / 1'000'000;
}

}  // namespace

std::string code_name(grpc::StatusCode code) { return rpc::code_name(code); }

std::string describe(const grpc::Status& status) {
  std::string line = absl::StrCat(code_name(status.error_code()), ": ", status.error_message());
  if (const auto detail = rpc::bad_request(status)) {
    for (const auto& violation : detail->field_violations()) {
      // A server's message often is the description already; then the field alone is missing.
      const bool said = status.error_message().find(violation.description()) != std::string::npos;
      absl::StrAppend(&line, " [field ", violation.field());
      if (!said) absl::StrAppend(&line, ": ", violation.description());
      absl::StrAppend(&line, "]");
    }
  }
  if (const auto detail = rpc::error_info(status)) {
    for (const auto& [key, value] : detail->metadata()) absl::StrAppend(&line, " [", key, " ", value, "]");
  }
  if (const auto detail = rpc::retry_info(status)) {
    absl::StrAppend(&line, " [retry in ", milliseconds(detail->retry_delay()), " ms]");
  }
  return absl::StrReplaceAll(line, {{"\n", " "}, {"\r", " "}});
}

nlohmann::json error_json(const grpc::Status& status) {
  nlohmann::json error = {{"code", code_name(status.error_code())}, {"message", status.error_message()}};
  if (const auto detail = rpc::bad_request(status); detail && detail->field_violations_size() > 0) {
    error["field"] = detail->field_violations(0).field();
    error["description"] = detail->field_violations(0).description();
  }
  if (const auto detail = rpc::error_info(status)) {
    error["reason"] = detail->reason();
    for (const auto& [key, value] : detail->metadata()) error["metadata"][key] = value;
  }
  if (const auto detail = rpc::retry_info(status))
    error["retry_delay_ms"] = milliseconds(detail->retry_delay());
  return error;
}

int exit_code_for(const grpc::Status& status) {
  switch (status.error_code()) {
    case grpc::StatusCode::OK:
      return kExitOk;
    case grpc::StatusCode::INVALID_ARGUMENT:
    case grpc::StatusCode::NOT_FOUND:
    case grpc::StatusCode::ALREADY_EXISTS:
    case grpc::StatusCode::OUT_OF_RANGE:
    case grpc::StatusCode::FAILED_PRECONDITION:
      return kExitInvalid;
    case grpc::StatusCode::UNAVAILABLE:
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
      return kExitUnavailable;
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return kExitDeadline;
    default:
      return kExitFailed;
  }
}

int report_error(const grpc::Status& status, const std::string& address) {
  std::fprintf(stderr, "trireme: %s: %s\n", address.c_str(), describe(status).c_str());
  return exit_code_for(status);
}

}  // namespace trireme::client
