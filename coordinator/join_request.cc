#include "coordinator/join_request.h"

#include <algorithm>
#include <tuple>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "proto/support/endpoint.h"

namespace trireme {
namespace {

constexpr int kMaxRanks = 4096;
constexpr size_t kMaxNameBytes = 128;
constexpr size_t kMaxJobIdBytes = 64;  // a replica's name is the job's and a number
constexpr size_t kMaxModelNameBytes = 512;

absl::Status invalid(const std::string& field, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(field, " ", what));
}

absl::Status check_name(const char* field, const std::string& name, size_t max_bytes = kMaxNameBytes) {
  const auto plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == ':' || c == '-';
  };
  if (!name.empty() && name.size() <= max_bytes && std::all_of(name.begin(), name.end(), plain))
    return absl::OkStatus();
  return invalid(field, absl::StrCat("has ", name.size(), " bytes; wanted 1 to ", max_bytes,
                                     " letters, digits and . _ : -"));
}

absl::Status check_range(const char* field, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return invalid(field, absl::StrCat("is ", value, "; wanted ", low, " to ", high));
}

/// The bounds keep every product of the planner inside 64 bits.
absl::Status check_model_info(const v1::ModelInfo& model) {
  if (model.name().empty() || model.name().size() > kMaxModelNameBytes)
    return invalid("model.name",
                   absl::StrCat("has ", model.name().size(), " bytes; wanted 1 to ", kMaxModelNameBytes));
  const std::tuple<const char*, int64_t, int64_t> extents[] = {
      {"model.hidden_size", model.hidden_size(), 1 << 18},
      {"model.intermediate_size", model.intermediate_size(), 1 << 20},
      {"model.num_layers", model.num_layers(), 1 << 12},
      {"model.num_heads", model.num_heads(), 1 << 11},
      {"model.num_kv_heads", model.num_kv_heads(), 1 << 11},
      {"model.head_dim", model.head_dim(), 1 << 10},
      {"model.vocab_size", model.vocab_size(), 1 << 24},
      {"model.weight_dtype_bytes", model.weight_dtype_bytes(), 16},
      {"model.kv_dtype_bytes", model.kv_dtype_bytes(), 16}};
  for (const auto& [field, value, most] : extents)
    if (absl::Status status = check_range(field, value, 1, most); !status.ok()) return status;
  return check_range("model.activation_dtype_bytes", model.activation_dtype_bytes(), 0, 16);
}

}  // namespace

absl::Status check_join_request(const v1::JoinJobRequest& request) {
  if (request.protocol_version() != kProtocolVersion)
    return absl::FailedPreconditionError(
        absl::StrCat("protocol version: the coordinator speaks ", kProtocolVersion, ", the job ",
                     request.protocol_version(), " (build ", request.build_version(), ")"));
  if (absl::Status status = check_name("job_id", request.job_id(), kMaxJobIdBytes); !status.ok())
    return status;
  if (absl::Status status = check_model_info(request.model()); !status.ok()) return status;
  if (absl::Status status = check_range("ranks", request.ranks_size(), 1, kMaxRanks); !status.ok())
    return status;
  for (int i = 0; i < request.ranks_size(); ++i) {
    if (request.ranks(i).rank() != i)
      return invalid(absl::StrCat("ranks[", i, "].rank"),
                     absl::StrCat("is ", request.ranks(i).rank(), "; wanted by rank, 0 first"));
    if (request.ranks(i).memory_bytes() < 0)
      return invalid(absl::StrCat("ranks[", i, "].memory_bytes"),
                     absl::StrCat("is ", request.ranks(i).memory_bytes(), "; wanted 0 or more"));
  }
  return check_range("wanted_tensor_parallel_size", request.wanted_tensor_parallel_size(), 0, kMaxRanks);
}

absl::Status check_registration(const v1::ReplicaRegistration& registration) {
  if (absl::Status status = check_name("replica_id", registration.replica_id()); !status.ok()) return status;
  if (absl::Status status = check_name("incarnation", registration.incarnation()); !status.ok())
    return status;
  if (absl::Status status = check_model_info(registration.model()); !status.ok()) return status;
  if (absl::Status status = check_range("max_context_len", registration.max_context_len(), 1, INT32_MAX);
      !status.ok())
    return status;
  if (absl::Status status = check_range("ranks", registration.ranks_size(), 0, kMaxRanks); !status.ok())
    return status;
  if (!registration.metrics_address().empty()) {
    const auto address = rpc::parse_address(registration.metrics_address());
    if (!address.ok()) return invalid("metrics_address", std::string(address.status().message()));
    if (absl::Status status = check_name("metrics_address", address->host); !status.ok()) return status;
  }
  if (!registration.advertise().empty()) {
    const auto address = rpc::parse_address(registration.advertise());
    if (!address.ok()) return invalid("advertise", std::string(address.status().message()));
    return check_range("advertise", address->port, 1, 65535);
  }
  return check_range("port", registration.port(), 1, 65535);
}

absl::StatusOr<std::string> replica_address(const v1::ReplicaRegistration& registration,
                                            const std::string& peer) {
  if (!registration.advertise().empty()) return registration.advertise();
  absl::string_view text = peer;
  if (!absl::ConsumePrefix(&text, "ipv4:") && !absl::ConsumePrefix(&text, "ipv6:"))
    return absl::InvalidArgumentError(
        absl::StrCat("peer ", peer, " has no IP address; the replica must advertise one"));
  const auto address =
      rpc::parse_address(absl::StrReplaceAll(text, {{"%5B", "["}, {"%5D", "]"}, {"%5b", "["}, {"%5d", "]"}}));
  if (!address.ok()) return address.status();
  std::string host = address->host;
  if (absl::StartsWith(host, "::ffff:") && host.find('.') != std::string::npos) host = host.substr(7);
  return rpc::Address{host, registration.port()}.text();
}

}  // namespace trireme
