#include "proto/support/errors.h"

#include <iterator>

#include "absl/strings/str_cat.h"
#include "google/rpc/status.pb.h"

namespace trireme::rpc {
namespace {

/// Messages travel in a trailer, percent-encoded and once more in the details, under a metadata cap of 16 kB.
constexpr size_t kMaxMessageBytes = 1024;
constexpr char kDomain[] = "trireme";

std::string shortened(std::string message) {
  if (message.size() <= kMaxMessageBytes) return message;
  size_t end = kMaxMessageBytes;
  while (end > 0 && (static_cast<unsigned char>(message[end]) & 0xC0) == 0x80)
    --end;  // not inside a character
  message.resize(end);
  return message + "...";
}

grpc::Status with_detail(grpc::StatusCode code, const std::string& message,
                         const google::protobuf::Message& detail) {
  google::rpc::Status status;
  status.set_code(code);
  status.set_message(shortened(message));
  status.add_details()->PackFrom(detail);
  return grpc::Status(code, status.message(), status.SerializeAsString());
}

template <typename Detail>
std::optional<Detail> find_detail(const grpc::Status& status) {
  google::rpc::Status details;
  if (status.error_details().empty() || !details.ParseFromString(status.error_details())) return std::nullopt;
  for (const google::protobuf::Any& any : details.details()) {
    Detail detail;
    if (any.Is<Detail>() && any.UnpackTo(&detail)) return detail;
  }
  return std::nullopt;
}

}  // namespace

std::string code_name(grpc::StatusCode code) {
  static constexpr const char* kNames[] = {
      "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
      "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
      "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
      "DATA_LOSS", "UNAUTHENTICATED"};
  const auto number = static_cast<size_t>(code);
  return number < std::size(kNames) ? kNames[number] : absl::StrCat("CODE_", number);
}

grpc::Status to_grpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), shortened(std::string(status.message())));
}

absl::Status from_grpc(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

grpc::Status invalid_field(const std::string& field, const std::string& description) {
  google::rpc::BadRequest detail;
  auto* violation = detail.add_field_violations();
  violation->set_field(shortened(field));
  violation->set_description(shortened(description));
  return with_detail(grpc::StatusCode::INVALID_ARGUMENT, field + " " + description, detail);
}

grpc::Status retry_after(grpc::StatusCode code, const std::string& message, std::chrono::milliseconds delay) {
  google::rpc::RetryInfo detail;
  detail.mutable_retry_delay()->set_seconds(delay.count() / 1000);
  detail.mutable_retry_delay()->set_nanos(static_cast<int32_t>(delay.count() % 1000) * 1'000'000);
  return with_detail(code, message, detail);
}

grpc::Status with_info(grpc::StatusCode code, const std::string& message, const std::string& reason,
                       const std::map<std::string, std::string>& metadata) {
  google::rpc::ErrorInfo detail;
  detail.set_reason(reason);
  detail.set_domain(kDomain);
  for (const auto& [key, value] : metadata) (*detail.mutable_metadata())[key] = shortened(value);
  return with_detail(code, message, detail);
}

grpc::Status unknown_resource(const std::string& type, const std::string& name, const std::string& message) {
  google::rpc::ResourceInfo detail;
  detail.set_resource_type(type);
  detail.set_resource_name(shortened(name));
  return with_detail(grpc::StatusCode::NOT_FOUND, message, detail);
}

std::optional<google::rpc::BadRequest> bad_request(const grpc::Status& status) {
  return find_detail<google::rpc::BadRequest>(status);
}

std::optional<google::rpc::RetryInfo> retry_info(const grpc::Status& status) {
  return find_detail<google::rpc::RetryInfo>(status);
}

std::optional<google::rpc::ErrorInfo> error_info(const grpc::Status& status) {
  return find_detail<google::rpc::ErrorInfo>(status);
}

}  // namespace trireme::rpc
