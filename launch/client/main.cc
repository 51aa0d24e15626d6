// trireme: generate text, look at a cluster, cancel a request.

#include "launch/client/commands.h"
#include "launch/client/interrupt.h"

int main(int argc, char** argv) {
  trireme::client::block_interrupts();  // before gRPC starts a thread
  CLI::App app("Talks to a Trireme coordinator, or to the leader of a replica directly.", "trireme");
  app.require_subcommand(1);
  app.footer(trireme::client::kExitCodeHelp);
  int exit_code = trireme::client::kExitOk;
  trireme::client::add_generate_command(app, exit_code);
  trireme::client::add_status_command(app, exit_code);
  trireme::client::add_cancel_command(app, exit_code);
  trireme::client::add_bench_command(app, exit_code);
  trireme::client::add_doctor_command(app, exit_code);
  trireme::client::add_plan_command(app, exit_code);
  trireme::client::add_project_command(app, exit_code);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? trireme::client::kExitOk : trireme::client::kExitInvalid;
  }
  return exit_code;
}
