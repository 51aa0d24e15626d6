#pragma once
// What every subcommand needs to make a call.

#include <memory>
#include <string>

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <CLI/CLI.hpp>

namespace trireme::client {

struct ConnectionOptions {
  std::string address = "127.0.0.1:50051";
  double timeout_s = 600;
  std::string client;  // whose requests these are; empty: this host's
};

/// Adds --address and --timeout, both checked while parsing.
void add_connection_options(CLI::App& command, ConnectionOptions& options);
/// Adds --client, which name_client() passes on.
void add_client_option(CLI::App& command, ConnectionOptions& options);
void name_client(grpc::ClientContext& context, const std::string& client);
/// A channel to the address, and a deadline on the call: no call of this command waits for ever.
std::shared_ptr<grpc::Channel> connect(const ConnectionOptions& options);
void set_deadline(grpc::ClientContext& context, double timeout_s);

}  // namespace trireme::client
