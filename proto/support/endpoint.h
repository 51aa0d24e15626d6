#pragma once
// How our processes listen and call: addresses, credentials, keepalive, message limits. Credentials are made
// here only.

#include <memory>
#include <string>

#include <grpcpp/channel.h>
#include <grpcpp/server_builder.h>

#include "absl/status/statusor.h"

namespace trireme::rpc {

struct Address {
  std::string host;
  int port = 0;
  std::string text() const;  // host:port, IPv6 in brackets
};

/// "host:port" or "[v6]:port"; port 0 to 65535. INVALID_ARGUMENT with what was got.
absl::StatusOr<Address> parse_address(const std::string& text);
bool is_loopback(const std::string& host);

/// FAILED_PRECONDITION for an address others can reach, unless `insecure`.
absl::Status check_open_address(const Address& address, bool insecure);

/// Adds the listening port: insecure credentials on a loopback address; on any other FAILED_PRECONDITION
/// unless `insecure`. Switches SO_REUSEPORT off, sets keepalive (2 s + 2 s, pings without calls allowed), a
/// metadata cap of 16 kB and the default 4 MB message limit. `bound_port` is written by BuildAndStart, 0 when
/// the port is in use.
absl::Status configure_server(grpc::ServerBuilder& builder, const Address& address, bool insecure,
                              int* bound_port);
/// A channel with the same keepalive and limits. Never blocks.
std::shared_ptr<grpc::Channel> create_channel(const std::string& address);

}  // namespace trireme::rpc
