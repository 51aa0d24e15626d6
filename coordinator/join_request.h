#pragma once
// What jobs and replicas say of themselves, checked before use.

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "trireme/v1/cluster.pb.h"

namespace trireme {

constexpr uint32_t kProtocolVersion = 1;

/// INVALID_ARGUMENT naming the field; FAILED_PRECONDITION for another protocol version, naming both.
absl::Status check_join_request(const v1::JoinJobRequest& request);
absl::Status check_registration(const v1::ReplicaRegistration& registration);

/// Where a replica listens: what it advertises, else the host of `peer` (as gRPC writes it, e.g.
/// "ipv4:10.0.0.7:4242" or "ipv6:%5B::1%5D:4242") and the registered port. INVALID_ARGUMENT for a peer that
/// is no IP address.
absl::StatusOr<std::string> replica_address(const v1::ReplicaRegistration& registration,
                                            const std::string& peer);

}  // namespace trireme
