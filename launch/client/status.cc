// trireme status: what a coordinator holds together, or what a single leader serves.

#include <atomic>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <memory>
#include <set>
#include <string>
#include <thread>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "launch/client/commands.h"
#include "launch/client/connection.h"
#include "launch/client/error_report.h"
#include "launch/client/health.h"
#include "launch/client/interrupt.h"
#include "launch/client/message_json.h"
#include "launch/client/status_watch.h"
#include "trireme/v1/cluster.grpc.pb.h"
#include "trireme/v1/inference.grpc.pb.h"

namespace trireme::client {
namespace {

using SteadyClock = std::chrono::steady_clock;

struct StatusOptions {
  ConnectionOptions connection;
  int wait_for_ranks = 0;
  double watch_s = 0;  // 0: one look
  bool json = false;
};

/// What was learned; `cluster` is empty and `is_leader` true for a leader asked directly.
struct ServerStatus {
  bool is_leader = false;
  std::string health;
  v1::GetClusterResponse cluster;
  v1::GetModelResponse model;
  bool has_model = false;

  int num_serving() const {
    if (is_leader) return health == "SERVING" ? 1 : 0;
    int count = 0;
    for (const auto& replica : cluster.replicas()) count += is_serving(replica) ? 1 : 0;
    return count;
  }
  int num_serving_ranks() const {
    if (is_leader) return num_serving() * model.tensor_parallel_size();
    int count = 0;
    for (const auto& replica : cluster.replicas()) {
      count += is_serving(replica) ? replica.tensor_parallel_size() : 0;
    }
    return count;
  }

 private:
  static bool is_serving(const v1::ReplicaStatus& replica) {
    return replica.state() == v1::REPLICA_STATE_SERVING;
  }
};

class StatusReader {
 public:
  StatusReader(const std::shared_ptr<grpc::Channel>& channel, SteadyClock::time_point deadline)
      : channel_(channel),
        cluster_(v1::Cluster::NewStub(channel)),
        inference_(v1::Inference::NewStub(channel)),
        deadline_(deadline) {}

  grpc::Status read(ServerStatus& result) {
    result = {};
    grpc::ClientContext cluster_context, model_context, health_context;
    for (auto* context : {&cluster_context, &model_context, &health_context})
      set_deadline(*context, remaining_s());
    grpc::Status status = cluster_->GetCluster(&cluster_context, {}, &result.cluster);
    result.is_leader = status.error_code() == grpc::StatusCode::UNIMPLEMENTED;
    if (!status.ok() && !result.is_leader) return status;
    status = inference_->GetModel(&model_context, {}, &result.model);
    result.has_model = status.ok();  // a coordinator without replicas has no model to tell of
    if (result.is_leader && !status.ok()) return status;
    const auto health = check_health(channel_, health_context);
    result.health = health.ok() ? *health : "UNKNOWN";
    return grpc::Status::OK;
  }

  double remaining_s() const {
    const double left = std::chrono::duration<double>(deadline_ - SteadyClock::now()).count();
    return std::max(left, 0.001);
  }

 private:
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Cluster::Stub> cluster_;
  std::unique_ptr<v1::Inference::Stub> inference_;
  SteadyClock::time_point deadline_;
};

std::string replica_line(const v1::ReplicaStatus& replica) {
  const v1::ReplicaLoad& load = replica.load();
  const std::string state(absl::StripPrefix(v1::ReplicaState_Name(replica.state()), "REPLICA_STATE_"));
  std::set<std::string> hosts;
  for (const auto& rank : replica.ranks()) hosts.insert(rank.host());
  return absl::StrFormat(
      "  %-12s %-9s %-21s TP %d, %s on %s: %d running, %d waiting, %d of %d KV blocks free, %d tokens out",
      replica.replica_id(), state, replica.address(), replica.tensor_parallel_size(), replica.backend(),
      absl::StrJoin(hosts, ","), load.running_requests(), load.waiting_requests(), load.kv_blocks_free(),
      load.kv_blocks_total(), load.output_tokens());
}

void print_text(const StatusOptions& options, const ServerStatus& status) {
  if (status.is_leader) {
    std::cout << absl::StrFormat("%s: leader of a replica, %s\n", options.connection.address, status.health);
  } else {
    std::cout << absl::StrFormat(
        "%s: coordinator %s, %s, up %.0f s, %d of %d replicas serving, %d requests (%d failed)\n",
        options.connection.address, status.cluster.version(), status.health, status.cluster.uptime_ms() / 1e3,
        status.num_serving(), status.cluster.replicas_size(), status.cluster.requests_total(),
        status.cluster.requests_failed());
  }
  if (status.has_model) {
    const v1::GetModelResponse& model = status.model;
    std::cout << absl::StrFormat("  model %s: %s, vocabulary %d, context %d, TP %d, %s on %s\n", model.name(),
                                 model.architecture(), model.vocab_size(), model.max_context_len(),
                                 model.tensor_parallel_size(), model.compute_dtype(), model.backend());
  }
  for (const auto& replica : status.cluster.replicas()) std::cout << replica_line(replica) << "\n";
  if (!status.cluster.metrics_address().empty())
    std::cout << "  metrics: http://" << status.cluster.metrics_address() << "/metrics\n";
  for (const auto& replica : status.cluster.replicas()) {
    if (!replica.metrics_address().empty())
      std::cout << absl::StrFormat("  metrics of %s: http://%s/metrics\n", replica.replica_id(),
                                   replica.metrics_address());
  }
  std::cout << std::flush;
}

void print_json(const ServerStatus& status) {
  nlohmann::json result = {{"kind", status.is_leader ? "leader" : "coordinator"},
                           {"health", status.health},
                           {"num_serving", status.num_serving()},
                           {"num_serving_ranks", status.num_serving_ranks()}};
  if (!status.is_leader) result["cluster"] = message_json(status.cluster);
  if (status.has_model) result["model"] = message_json(status.model);
  std::cout << result.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << std::endl;
}

/// 0 when enough is serving, else what is missing on stderr.
int verdict(const StatusOptions& options, const ServerStatus& status) {
  const std::string& address = options.connection.address;
  if (options.wait_for_ranks > status.num_serving_ranks()) {
    std::fprintf(stderr, "trireme: %s: %d ranks serving, wanted %d\n", address.c_str(),
                 status.num_serving_ranks(), options.wait_for_ranks);
    return kExitDeadline;
  }
  if (status.num_serving() > 0) return kExitOk;
  std::fprintf(stderr, "trireme: %s: no replica is serving\n", address.c_str());
  return kExitUnavailable;
}

int run_status(const StatusOptions& options) {
  const auto timeout = std::chrono::duration_cast<SteadyClock::duration>(
      std::chrono::duration<double>(options.connection.timeout_s));
  const auto deadline = SteadyClock::now() + timeout;
  ServerStatus result;
  std::atomic<bool> interrupted{false};
  const InterruptWatch watch([&interrupted] { interrupted = true; });
  // A new channel for each attempt: an old one would wait out its back-off first.
  const auto read = [&] { return StatusReader(connect(options.connection), deadline).read(result); };
  grpc::Status status = read();
  while ((!status.ok() || result.num_serving_ranks() < options.wait_for_ranks) &&
         options.wait_for_ranks > 0 && !interrupted && SteadyClock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    status = read();
  }
  if (interrupted) return kExitInterrupted;
  if (!status.ok()) return report_error(status, options.connection.address);
  options.json ? print_json(result) : print_text(options, result);
  return verdict(options, result);
}

double watch_period(const std::string& text) {
  double seconds = 1;
  if (!text.empty() && (!absl::SimpleAtod(text, &seconds) || !(seconds >= 0.05 && seconds <= 3600)))
    throw CLI::ValidationError("--watch", "got '" + text + "', wanted 0.05 to 3600 seconds");
  return seconds;
}

}  // namespace

void add_status_command(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<StatusOptions>();
  options->connection.timeout_s = 10;
  CLI::App* command = app.add_subcommand("status", "Show a coordinator and its replicas, or one leader");
  command->footer(
      std::string(
          "Exit code 3 too when no replica is serving.\n"
          "--json: {kind, health, num_serving, num_serving_ranks, cluster, model}; cluster and model are the "
          "GetCluster and GetModel responses field by field. cluster.replicas[].load.rank_times says where "
          "each "
          "rank's time went: seconds by phase since its start, to be taken twice and subtracted (RankTimes "
          "in "
          "proto/trireme/v1/cluster.proto).\n") +
      kExitCodeHelp);
  add_connection_options(*command, options->connection);
  command
      ->add_option("--wait-for-ranks", options->wait_for_ranks,
                   "wait until replicas of N ranks together serve, at most --timeout, then exit code 4")
      ->type_name("N")
      ->check(CLI::Range(1, 100000));
  auto* json = command->add_flag("--json", options->json, "print one JSON object");
  command
      ->add_option_function<std::string>(
          "--watch", [options](const std::string& text) { options->watch_s = watch_period(text); },
          "show the coordinator's replicas and totals every so often, until Ctrl-C [1]")
      ->type_name("[SECONDS]")
      ->expected(0, 1)
      ->excludes(json);
  command->callback([options, &exit_code] {
    exit_code =
        options->watch_s > 0 ? watch_status(options->connection, options->watch_s) : run_status(*options);
  });
}

}  // namespace trireme::client
