#pragma once
// The subcommands of `trireme`, one file each. A new one is a file, a line here and a line in main.cc.

#include <CLI/CLI.hpp>

namespace trireme::client {

/// What the process returns. Each --help lists them.
enum ExitCode {
  kExitOk = 0,
  kExitFailed = 1,   // the server failed: INTERNAL and every status not named below
  kExitInvalid = 2,  // the command line or the request: INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS, ...
  kExitUnavailable =
      3,              // nobody there, or no room now: UNAVAILABLE, RESOURCE_EXHAUSTED; trying later may help
  kExitDeadline = 4,  // --timeout passed
  kExitInterrupted = 130,
};

inline constexpr char kExitCodeHelp[] =
    "Exit codes: 0 done; 1 the server failed; 2 the command line or the request is wrong; 3 not reachable or "
    "overloaded, try later; 4 --timeout passed; 130 interrupted (the request is cancelled).";

/// Each adds its subcommand; when that is the one chosen, its callback runs during parsing and writes the
/// exit code. `exit_code` must outlive the parsing.
void add_generate_command(CLI::App& app, int& exit_code);
void add_status_command(CLI::App& app, int& exit_code);
void add_cancel_command(CLI::App& app, int& exit_code);
void add_plan_command(CLI::App& app, int& exit_code);
void add_project_command(CLI::App& app, int& exit_code);
void add_bench_command(CLI::App& app, int& exit_code);
void add_doctor_command(CLI::App& app, int& exit_code);
/// Below `trireme bench`.
void add_serve_bench_command(CLI::App& bench, int& exit_code);
void add_collective_bench_command(CLI::App& bench, int& exit_code);

}  // namespace trireme::client
