#include "proto/support/endpoint.h"

#include <cstdlib>

#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "grpc/health/v1/health.grpc.pb.h"

namespace trireme::rpc {
namespace {

constexpr int kMinPingIntervalMs = 1000;  // that a server tolerates
constexpr int kMaxMetadataBytes = 16 * 1024;
constexpr int kMaxMessageBytes = 4 * 1024 * 1024;
constexpr int kMaxStreamsPerConnection = 1024;
// What may be in flight on a stream that is not read. gRPC's own estimate grows to some 16 MB on a fast link,
// which is 100,000 tokens too many.
constexpr int kStreamWindowBytes = 256 * 1024;

/// A test on a machine that stands still for seconds (sanitizers, many processes on few cores) makes the
/// limits below longer, by the factor that lengthens its own waits.
int scaled(int milliseconds) {
  static const double factor = [] {
    const char* text = std::getenv("TRIREME_TEST_TIME_FACTOR");
    double value = 1;
    const bool valid = text != nullptr && absl::SimpleAtod(text, &value) && value >= 1 && value <= 100;
    return valid ? value : 1;
  }();
  return static_cast<int>(milliseconds * factor);
}

/// Time to the first ping, and for its answer.
int keepalive_ms() { return scaled(2000); }

/// For one attempt to connect, handshake included. Not less: a busy server that takes its time to accept
/// would meet the same client again and again.
int connect_ms() { return scaled(5000); }

/// gRPC 1.51 runs reactions on threads of a queue that is counted by the servers and channels using it. Where
/// the last of them goes in a reaction, say a channel after its server, the queue joins its own thread:
/// shutdown hangs for 10 s, or aborts. A channel that stays keeps the queue; its one call is cancelled before
/// it starts, so nothing is ever connected.
void keep_callback_queue() {
  struct Anchor {
    std::shared_ptr<grpc::Channel> channel =
        grpc::CreateChannel("127.0.0.1:1", grpc::InsecureChannelCredentials());
    std::unique_ptr<grpc::health::v1::Health::Stub> stub = grpc::health::v1::Health::NewStub(channel);
    grpc::ClientContext context;
    grpc::health::v1::HealthCheckRequest request;
    grpc::health::v1::HealthCheckResponse response;
    Anchor() {
      context.TryCancel();
      stub->async()->Check(&context, &request, &response, [](const grpc::Status&) {});
    }
  };
  // Never deleted. Nobody reads it, but a leak checker must find it, so the compiler may not drop it.
  [[gnu::used]] static const Anchor* anchor = new Anchor;
}

absl::Status bad_address(const std::string& text, const char* wanted) {
  return absl::InvalidArgumentError(absl::StrCat("address '", text.substr(0, 128), "': wanted ", wanted));
}

}  // namespace

std::string Address::text() const {
  return host.find(':') == std::string::npos ? absl::StrCat(host, ":", port)
                                             : absl::StrCat("[", host, "]:", port);
}

absl::StatusOr<Address> parse_address(const std::string& text) {
  constexpr char kForm[] = "host:port or [IPv6]:port";
  Address address;
  size_t colon;
  if (absl::StartsWith(text, "[")) {
    const size_t bracket = text.find(']');
    if (bracket == std::string::npos || bracket + 1 >= text.size() || text[bracket + 1] != ':')
      return bad_address(text, kForm);
    address.host = text.substr(1, bracket - 1);
    colon = bracket + 1;
  } else {
    colon = text.find(':');
    if (colon == std::string::npos) return bad_address(text, kForm);
    if (text.find(':', colon + 1) != std::string::npos)
      return bad_address(text, "one colon; an IPv6 address needs brackets");
    address.host = text.substr(0, colon);
  }
  if (address.host.empty() || address.host.find_first_of(" \t\r\n/[]%") != std::string::npos)
    return bad_address(text, kForm);
  const std::string port = text.substr(colon + 1);
  const bool digits = !port.empty() && port.find_first_not_of("0123456789") == std::string::npos;
  if (!digits || !absl::SimpleAtoi(port, &address.port) || address.port > 65535)
    return bad_address(text, "a port from 0 to 65535");
  return address;
}

bool is_loopback(const std::string& host) {
  if (host == "localhost" || host == "::1") return true;
  if (!absl::StartsWith(host, "127.")) return false;
  // A name may begin with digits too: only a dotted address is one.
  return host.find_first_not_of("0123456789.") == std::string::npos;
}

absl::Status check_open_address(const Address& address, bool insecure) {
  if (insecure || is_loopback(address.host)) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("listening on ", address.text(),
                   " would be open to the network, without encryption or authentication: use a loopback "
                   "address, or accept that with --insecure"));
}

absl::Status configure_server(grpc::ServerBuilder& builder, const Address& address, bool insecure,
                              int* bound_port) {
  if (absl::Status status = check_open_address(address, insecure); !status.ok()) return status;
  keep_callback_queue();
  *bound_port = 0;
  builder.AddListeningPort(address.text(), grpc::InsecureServerCredentials(), bound_port);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, keepalive_ms());
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, keepalive_ms());
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // Peers ping each 2 s on idle connections; the default tolerates one ping in 5 minutes.
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, kMinPingIntervalMs);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxStreamsPerConnection);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kStreamWindowBytes);
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  return absl::OkStatus();
}

std::shared_ptr<grpc::Channel> create_channel(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, keepalive_ms());
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, keepalive_ms());
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kStreamWindowBytes);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 200);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, connect_ms());  // the time one attempt may take
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 5000);
  // A cluster's addresses are never behind the proxy of http_proxy, and a new channel must not inherit the
  // back-off of an earlier one to the same address.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

}  // namespace trireme::rpc
