#include "launch/client/connection.h"

#include <algorithm>
#include <chrono>

#include "absl/strings/str_cat.h"
#include "proto/support/caller.h"
#include "proto/support/endpoint.h"

namespace trireme::client {
namespace {

std::string address_problem(const std::string& text) {
  const auto address = rpc::parse_address(text);
  if (!address.ok()) return std::string(address.status().message());
  return address->port == 0 ? "port: got 0, wanted 1 to 65535" : "";
}

}  // namespace

void add_connection_options(CLI::App& command, ConnectionOptions& options) {
  command.add_option("--address", options.address, "coordinator, or leader of a replica")
      ->type_name("HOST:PORT")
      ->capture_default_str()
      ->check(CLI::Validator(address_problem, ""));
  command.add_option("--timeout", options.timeout_s, "give up after this many seconds")
      ->type_name("S")
      ->capture_default_str()
      ->check(CLI::Range(0.001, 3600.0));
}

void add_client_option(CLI::App& command, ConnectionOptions& options) {
  command
      .add_option("--client", options.client,
                  "on whose behalf, for the server's bound on each client's waiting requests [this host]")
      ->type_name("NAME")
      ->check(CLI::Validator(
          [](const std::string& name) -> std::string {
            const bool printable =
                std::all_of(name.begin(), name.end(), [](char c) { return c >= 0x20 && c <= 0x7e; });
            if (printable && !name.empty() && name.size() <= rpc::kMaxClientBytes) return "";
            return absl::StrCat("wanted 1 to ", rpc::kMaxClientBytes, " printable ASCII characters");
          },
          ""));
}

void name_client(grpc::ClientContext& context, const std::string& client) {
  if (!client.empty()) context.AddMetadata(rpc::kClientKey, client);
}

std::shared_ptr<grpc::Channel> connect(const ConnectionOptions& options) {
  return rpc::create_channel(options.address);
}

void set_deadline(grpc::ClientContext& context, double timeout_s) {
  // gRPC turns a deadline of the system clock into a remaining time at once, so a clock step moves nothing.
  context.set_deadline(std::chrono::system_clock::now() +
                       std::chrono::microseconds(static_cast<int64_t>(timeout_s * 1e6)));
}

}  // namespace trireme::client
