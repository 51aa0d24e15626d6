// trireme-coordinator: the one address clients call.

#include <csignal>
#include <cstdio>
#include <thread>

#include <grpc/support/log.h>
#include <pthread.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <CLI/CLI.hpp>

#include "absl/strings/numbers.h"
#include "coordinator/coordinator.h"

namespace {

struct Flags {
  std::string listen = "127.0.0.1:50051";
  std::string metrics_listen = "127.0.0.1:0";
  std::string tensor_parallel = "auto";
  std::string log_level = "info";
  bool insecure = false;
  bool keep_replicas = false;
  double drain_timeout_s = 30;
  double max_request_time_s = 3600;
  int max_resumes = 1;
  double resume_timeout_s = 10;
  double write_timeout_s = 30;
  trireme::RequestLimits request_limits;
};

std::string check_tensor_parallel(const std::string& text) {
  int size = 0;
  if (text == "auto" || (absl::SimpleAtoi(text, &size) && size >= 1 && size <= 4096)) return "";
  return "got '" + text + "', wanted auto or 1 to 4096";
}

/// CLI::Range lets NaN pass.
CLI::Validator seconds_from(double least) {
  return CLI::Validator(
      [least](std::string& text) -> std::string {
        double seconds = 0;
        if (absl::SimpleAtod(text, &seconds) && seconds >= least && seconds <= 86400) return "";
        return "got '" + text + "', wanted " + std::to_string(least) + " to 86400 seconds";
      },
      "SECONDS");
}

void add_flags(CLI::App& app, Flags& flags) {
  app.add_option("--listen", flags.listen, "host:port clients and workers call; port 0 takes a free one")
      ->capture_default_str();
  app.add_option("--metrics-listen", flags.metrics_listen,
                 "host:port of the Prometheus endpoint, told when ready; port 0 takes a free one; or off")
      ->capture_default_str();
  app.add_flag("--insecure", flags.insecure,
               "accept addresses to listen on that are not loopback, without encryption or authentication");
  app.add_option("--tensor-parallel", flags.tensor_parallel,
                 "ranks per replica for every job that joins; auto: the smallest size that fits")
      ->check(check_tensor_parallel)
      ->capture_default_str();
  app.add_option("--drain-timeout", flags.drain_timeout_s, "seconds running requests may take after SIGTERM")
      ->check(seconds_from(0))
      ->capture_default_str();
  app.add_option("--max-request-time", flags.max_request_time_s,
                 "seconds after which a request ends, whatever deadline it came with")
      ->check(seconds_from(0.001))
      ->capture_default_str();
  app.add_option("--max-resumes", flags.max_resumes,
                 "deaths of replicas a request outlives: it goes on on another one")
      ->check(CLI::Range(0, 100))
      ->capture_default_str();
  app.add_option("--resume-timeout", flags.resume_timeout_s,
                 "seconds a request waits, after its replica died, for another one to serve")
      ->check(seconds_from(0))
      ->capture_default_str();
  app.add_option("--write-timeout", flags.write_timeout_s,
                 "seconds after which a request ends whose client does not read")
      ->check(seconds_from(0.001))
      ->capture_default_str();
  for (const trireme::RequestLimitOption& option : trireme::request_limit_options()) {
    app.add_option(option.flag, flags.request_limits.*option.limit, option.text)
        ->check(CLI::Range(option.least, option.most))
        ->capture_default_str();
  }
  app.add_flag("--keep-replicas", flags.keep_replicas,
               "do not stop the replicas on SIGTERM; they join the next coordinator");
  app.add_option("--log-level", flags.log_level, "to stderr; prompts and outputs are never logged")
      ->check(CLI::IsMember({"debug", "info", "warn", "error", "off"}))
      ->capture_default_str();
}

std::chrono::milliseconds milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
}

absl::StatusOr<trireme::CoordinatorOptions> to_options(const Flags& flags) {
  const absl::StatusOr<trireme::rpc::Address> listen = trireme::rpc::parse_address(flags.listen);
  if (!listen.ok()) return listen.status();
  trireme::CoordinatorOptions options;
  options.listen = *listen;
  if (flags.metrics_listen != "off") {
    const absl::StatusOr<trireme::rpc::Address> metrics = trireme::rpc::parse_address(flags.metrics_listen);
    if (!metrics.ok()) return metrics.status();
    options.metrics_listen = *metrics;
  }
  options.insecure = flags.insecure;
  options.keep_replicas = flags.keep_replicas;
  options.frontend.max_request_time = milliseconds(flags.max_request_time_s);
  options.frontend.limits = flags.request_limits;
  options.frontend.request.max_resumes = flags.max_resumes;
  options.frontend.request.resume_timeout = milliseconds(flags.resume_timeout_s);
  options.frontend.request.write_timeout = milliseconds(flags.write_timeout_s);
  if (flags.tensor_parallel != "auto")
    options.cluster.tensor_parallel_size = std::stoi(flags.tensor_parallel);
  return options;
}

/// Blocked before any thread starts, so that only wait_for_signal() sees them.
sigset_t block_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  return signals;
}

int wait_for_signal(const sigset_t& signals) {
  int signal = 0;
  while (sigwait(&signals, &signal) != 0) {
  }
  return signal;
}

int serve(const Flags& flags) {
  const sigset_t signals = block_signals();
  const absl::StatusOr<trireme::CoordinatorOptions> options = to_options(flags);
  absl::Status status = options.status();
  if (status.ok()) {
    auto coordinator = trireme::Coordinator::start(*options);
    status = coordinator.status();
    if (status.ok()) {
      std::printf("trireme-coordinator ready, listening on %s\n", (*coordinator)->address().c_str());
      if (const std::string metrics = (*coordinator)->metrics_address(); !metrics.empty())
        std::printf("trireme-coordinator metrics on http://%s/metrics\n", metrics.c_str());
      std::fflush(stdout);
      spdlog::info("signal {}: draining for at most {} s", wait_for_signal(signals), flags.drain_timeout_s);
      std::thread([signals] { _exit(128 + wait_for_signal(signals)); }).detach();  // a second one: now
      (*coordinator)->drain(milliseconds(flags.drain_timeout_s));
      coordinator->reset();
      spdlog::info("drained");
      return 0;
    }
  }
  std::fprintf(stderr, "trireme-coordinator: %s\n", std::string(status.message()).c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("The one address clients of Trireme call: routes each request to a replica.");
  Flags flags;
  add_flags(app, flags);
  CLI11_PARSE(app, argc, argv);
  spdlog::set_default_logger(spdlog::stderr_color_mt("coordinator"));
  spdlog::set_level(spdlog::level::from_str(flags.log_level));
  // gRPC reports a port in use and a refused connection as errors of its own; ours say it in one line.
  gpr_set_log_function([](gpr_log_func_args* line) { spdlog::debug("grpc: {}", line->message); });
  return serve(flags);
}
