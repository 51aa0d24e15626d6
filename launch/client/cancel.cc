// trireme cancel: end a running request by its id.

#include <memory>
#include <string>

#include "launch/client/commands.h"
#include "launch/client/connection.h"
#include "launch/client/error_report.h"
#include "launch/client/interrupt.h"
#include "trireme/v1/inference.grpc.pb.h"

namespace trireme::client {
namespace {

struct CancelOptions {
  ConnectionOptions connection;
  std::string request_id;
};

int run_cancel(const CancelOptions& options) {
  grpc::ClientContext context;
  set_deadline(context, options.connection.timeout_s);
  const InterruptWatch watch([&context] { context.TryCancel(); });
  v1::CancelRequest request;
  request.set_request_id(options.request_id);
  v1::CancelResponse response;
  const grpc::Status status =
      v1::Inference::NewStub(connect(options.connection))->Cancel(&context, request, &response);
  if (watch.interrupted()) return kExitInterrupted;
  return status.ok() ? kExitOk : report_error(status, options.connection.address);
}

}  // namespace

void add_cancel_command(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<CancelOptions>();
  options->connection.timeout_s = 10;
  CLI::App* command =
      app.add_subcommand("cancel", "End a running request; one that is not running is not an error");
  command->footer(kExitCodeHelp);
  add_connection_options(*command, options->connection);
  command->add_option("--request-id", options->request_id, "as given to `trireme generate --request-id`")
      ->required();
  command->callback([options, &exit_code] { exit_code = run_cancel(*options); });
}

}  // namespace trireme::client
