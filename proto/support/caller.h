#pragma once
// Who makes a call, as far as a server can tell without credentials: for bounds per client, not for trust.

#include <map>
#include <string>

#include <grpcpp/support/status.h>
#include <grpcpp/support/string_ref.h>

namespace trireme::rpc {

/// Names the client a call is made for: 1 to kMaxClientBytes printable ASCII characters. Set by a gateway
/// that serves several, and by a coordinator that calls a replica.
inline constexpr char kClientKey[] = "x-trireme-client";
inline constexpr size_t kMaxClientBytes = 128;
/// Set by a coordinator: on how many replicas the request was lost before.
inline constexpr char kResumesKey[] = "x-trireme-resumes";

using CallMetadata = std::multimap<grpc::string_ref, grpc::string_ref>;

/// What kClientKey says, else the peer's address without its port, so that a client with many connections is
/// one. `peer` is the context's: "ipv4:10.0.0.7:41234", "ipv6:%5B::1%5D:41234", "unix:path". INVALID_ARGUMENT
/// naming the key when it is there twice, too long, empty or not printable.
grpc::Status identify_client(const CallMetadata& metadata, const std::string& peer, std::string& client);

/// Whether a replica before this one had the request: it was let in once already.
bool is_resumed(const CallMetadata& metadata);

}  // namespace trireme::rpc
