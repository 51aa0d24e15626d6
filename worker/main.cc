// trireme-worker: one rank of a job that serves a model.

#include <sys/prctl.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include "engine/parallel/process_group.h"
#include "worker/exit_code.h"
#include "worker/options.h"
#include "worker/worker_process.h"

namespace {

/// The rank that the launcher says this is, or null when there is none. MPI knows better, once it runs.
const char* launched_rank() {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"}) {
    if (const char* rank = std::getenv(name)) return rank;
  }
  return nullptr;
}

}  // namespace

int main(int argc, char** argv) {
  const auto started = std::chrono::steady_clock::now();
  const char* rank = launched_rank();
  // A rank whose daemon died is alone, and a stopped one would stay for ever. A process without a launcher
  // belongs to its user.
  if (rank != nullptr) ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  std::signal(SIGPIPE, SIG_IGN);
  ::setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);  // we tell what went wrong, in one line

  trireme::worker::WorkerOptions options;
  const bool quiet = rank != nullptr && std::string_view(rank) != "0";
  if (const auto code = trireme::worker::parse_options(argc, argv, quiet, options))
    return static_cast<int>(*code);
  spdlog::set_default_logger(spdlog::stderr_logger_mt("worker"));
  spdlog::set_level(spdlog::level::from_str(options.log_level));

  const auto world = trireme::create_world(&argc, &argv);
  if (!world.ok()) {
    std::fprintf(stderr, "trireme-worker: %s\n", std::string(world.status().message()).c_str());
    return static_cast<int>(trireme::worker::exit_code(world.status()));
  }
  return static_cast<int>(trireme::worker::run_worker(options, **world, started));
}
