#include "worker/leader_process.h"

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include <spdlog/spdlog.h>

#include "absl/strings/str_cat.h"
#include "proto/support/metrics_endpoint.h"
#include "worker/delivery.h"
#include "worker/leader_metrics.h"
#include "worker/replica_server.h"

namespace trireme::worker {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kLook{100};
constexpr std::chrono::milliseconds kTelemetryInterval{1000};
constexpr std::chrono::milliseconds kShutdownGrace{2000};  // for the last messages to leave

/// Health, signals and the coordinator's wishes, on a thread of its own beside the step loop.
class Attendant {
 public:
  Attendant(Leader& leader, ReplicaServer& server, const LeaderAddresses& addresses,
            const LifeSign& life_sign, const LeaderProcessOptions& options, const StopSignal& stop_signal)
      : leader_(leader), server_(server), life_sign_(life_sign), options_(options), signal_(stop_signal) {
    if (!options.coordinator.empty()) join_cluster(addresses);
    thread_ = std::thread([this] { run(); });
  }
  ~Attendant() {
    over_ = true;
    thread_.join();
  }

  /// Once the leader has been abandoned.
  absl::Status lost_coordinator() {
    std::lock_guard lock(mutex_);
    return absl::AbortedError(absl::StrCat("replica ", options_.registration.replica_id(),
                                           " has been without coordinator ", options_.coordinator, " for ",
                                           options_.lease.give_up_after.count(), " ms (", lost_reason_,
                                           "): --coordinator-timeout, the job ends"));
  }

 private:
  void join_cluster(const LeaderAddresses& addresses) {
    v1::ReplicaRegistration registration = options_.registration;
    registration.set_port(addresses.inference.port);
    if (addresses.metrics) registration.set_metrics_address(addresses.metrics->text());
    ReplicaHooks hooks;
    hooks.report = [this] {
      v1::ReplicaReport report = replica_report(leader_.status(), leader_.metrics());
      if (announced_) report.set_draining(true);
      return report;
    };
    hooks.on_desired_state = [this](v1::ReplicaState state) { obey(state); };
    hooks.on_lost = [this](const std::string& reason) { give_up(reason); };
    lease_ = std::make_unique<ReplicaLease>(options_.coordinator, std::move(registration), std::move(hooks),
                                            options_.lease);
  }

  void obey(v1::ReplicaState state) {
    if (state == v1::REPLICA_STATE_DRAINING && !leader_.draining()) {
      spdlog::info("replica {}: the coordinator asks to drain", options_.registration.replica_id());
      leader_.drain();
    }
    if (state == v1::REPLICA_STATE_STOP && !stop_asked_.exchange(true)) {
      spdlog::info("replica {}: the coordinator asks to stop", options_.registration.replica_id());
      leader_.stop(Clock::now() + options_.drain_timeout);
    }
  }

  void give_up(const std::string& reason) {
    if (announced_ || stop_asked_) return;  // it ends anyway
    {
      std::lock_guard lock(mutex_);
      lost_reason_ = reason;
    }
    leader_.abandon(Clock::now() + options_.drain_timeout);
  }

  void run() {
    uint64_t last_life = 0;
    auto last_change = Clock::now();
    std::optional<bool> serving;
    while (!over_) {
      const int signals = signal_.wait(kLook);
      for (int i = 0; i < signals; ++i) on_signal();
      const uint64_t life = life_sign_() + leader_.beats();
      const auto now = Clock::now();
      if (life != last_life) last_change = now;
      last_life = life;
      const bool healthy = leader_.beats() > 0 && now - last_change < options_.health_timeout;
      const bool next = healthy && !leader_.draining() && !announced_;
      if (serving != next) server_.set_serving(next);
      serving = next;
    }
  }

  void on_signal() {
    if (announced_.exchange(true)) {
      spdlog::warn("replica {}: second signal, stopping now", options_.registration.replica_id());
      return leader_.stop(Clock::now());
    }
    spdlog::info("replica {}: signal, draining for at most {} ms", options_.registration.replica_id(),
                 options_.drain_timeout.count());
    const auto deadline = Clock::now() + options_.drain_timeout;
    server_.set_serving(false);
    // Requests that the coordinator sent before it heard of the drain are still taken.
    if (lease_ && lease_->report_now(options_.announce_time))
      std::this_thread::sleep_for(options_.announce_time);
    leader_.stop(deadline);
  }

  Leader& leader_;
  ReplicaServer& server_;
  const LifeSign& life_sign_;
  const LeaderProcessOptions& options_;
  const StopSignal& signal_;
  std::atomic<bool> announced_{false};
  std::atomic<bool> stop_asked_{false};
  std::atomic<bool> over_{false};
  std::mutex mutex_;
  std::string lost_reason_;
  std::unique_ptr<ReplicaLease> lease_;
  std::thread thread_;
};

absl::Status start_metrics(Leader& leader, const ServedModel& model, const LeaderProcessOptions& options,
                           std::unique_ptr<rpc::MetricsEndpoint>& metrics) {
  const rpc::MetricLabels labels{{"model_name", model.name}, {"replica", options.registration.replica_id()}};
  auto started = rpc::MetricsEndpoint::start(*options.metrics_listen, options.insecure,
                                             [&leader, labels](rpc::MetricsPage& page) {
                                               page.label_all(labels);
                                               fill_metrics(leader.status(), leader.metrics(), page);
                                             });
  if (started.ok()) metrics = *std::move(started);
  return started.status();
}

void fill_times(const RankTelemetry& telemetry, int rank, v1::RankTimes& message) {
  const auto seconds = [](int64_t ns) { return static_cast<double>(ns) * 1e-9; };
  const auto of = [&](Phase phase) { return seconds(telemetry.times.of(phase)); };
  message.set_rank(rank);
  message.set_wall_seconds(seconds(telemetry.times.wall_ns));
  message.set_idle_seconds(of(Phase::idle));
  message.set_schedule_seconds(of(Phase::schedule));
  message.set_broadcast_seconds(of(Phase::broadcast));
  message.set_upload_seconds(of(Phase::upload));
  message.set_compute_seconds(of(Phase::compute));
  message.set_collective_wait_seconds(seconds(telemetry.collective_wait_ns));
  message.set_collective_transfer_seconds(seconds(telemetry.collective_transfer_ns()));
  message.set_sample_seconds(of(Phase::sample));
  message.set_finish_seconds(of(Phase::finish));
  message.set_host_seconds(of(Phase::host));
  message.set_unaccounted_seconds(seconds(telemetry.times.unaccounted_ns()));
  message.set_clock_error_seconds(seconds(telemetry.clock_error_ns));
  message.set_collectives(static_cast<int64_t>(telemetry.num_collectives));
  message.set_compared_collectives(static_cast<int64_t>(telemetry.num_compared_collectives));
}

}  // namespace

v1::ReplicaReport replica_report(const LeaderStatus& status, const ServingMetrics& metrics) {
  v1::ReplicaReport report;
  v1::ReplicaLoad* load = report.mutable_load();
  load->set_running_requests(status.engine.running);
  load->set_waiting_requests(static_cast<int32_t>(status.waiting.requests));
  load->set_waiting_prompt_tokens(status.waiting.prompt_tokens);
  load->set_kv_blocks_total(status.engine.blocks_total);
  load->set_kv_blocks_free(status.engine.blocks_free);
  load->set_kv_blocks_cached(status.engine.blocks_cached);
  load->set_preemptions(status.engine.preemptions);
  load->set_steps(status.engine.steps);
  load->set_finished_requests(status.engine.finished);
  load->set_output_tokens(status.engine.output_tokens);
  load->set_prompt_tokens(status.engine.prompt_tokens);
  load->set_cached_prompt_tokens(status.engine.cached_prompt_tokens);
  const RequestTotals totals = request_totals(metrics);
  load->set_rejected_requests(totals.rejected);
  load->set_cancelled_requests(totals.cancelled);
  load->set_resumed_requests(totals.resumed);
  for (size_t rank = 0; rank < status.ranks.size(); ++rank)
    fill_times(status.ranks[rank], static_cast<int>(rank), *load->add_rank_times());
  load->set_rank_times_steps(status.ranks_steps);
  load->set_delivery_seconds(static_cast<double>(status.delivery_ns) * 1e-9);
  report.set_draining(status.draining);
  report.set_drained(status.drained);
  return report;
}

absl::Status run_leader_process(StepEngine& engine, const LifeSign& life_sign, const ServedModel& model,
                                const LeaderProcessOptions& options, const StopSignal& stop_signal,
                                const std::function<void(const LeaderAddresses&)>& on_ready) {
  Delivery delivery;
  LeaderOptions leader_options = options.leader;
  leader_options.telemetry_interval = kTelemetryInterval;
  Leader leader(engine, delivery, leader_options);
  std::unique_ptr<rpc::MetricsEndpoint> metrics;  // ends before the leader
  auto server = ReplicaServer::start(options.listen, options.insecure, model, leader, options.service);
  absl::Status status = server.status();
  if (status.ok() && options.metrics_listen) status = start_metrics(leader, model, options, metrics);
  if (!status.ok()) {
    if (auto sent = engine.broadcast_stop(); !sent.ok()) return sent;
    return status;
  }
  const LeaderAddresses addresses{(*server)->address(),
                                  metrics ? std::optional(metrics->address()) : std::nullopt};
  {
    Attendant attendant(leader, **server, addresses, life_sign, options, stop_signal);
    on_ready(addresses);
    status = leader.run();
    (*server)->set_serving(false);
    (*server)->shutdown(kShutdownGrace);
    if (status.ok() && leader.abandoned()) status = attendant.lost_coordinator();
  }
  return status;
}

}  // namespace trireme::worker
