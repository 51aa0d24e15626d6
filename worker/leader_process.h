#pragma once
// Everything a leader runs beside its engine: step loop, server, lease, health, drain.

#include <chrono>
#include <functional>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "proto/support/endpoint.h"
#include "trireme/v1/cluster.pb.h"
#include "worker/generate_service.h"
#include "worker/leader.h"
#include "worker/replica_lease.h"
#include "worker/served_model.h"
#include "worker/step_engine.h"
#include "worker/stop_signal.h"

namespace trireme::worker {

struct LeaderProcessOptions {
  rpc::Address listen{"127.0.0.1", 0};
  bool insecure = false;
  std::optional<rpc::Address> metrics_listen;  // for Prometheus; none when unset
  std::string coordinator;                     // none when empty
  v1::ReplicaRegistration registration;        // its port is filled in here
  std::chrono::milliseconds drain_timeout{30'000};
  std::chrono::milliseconds health_timeout{3'000};  // without a sign of life: not serving
  std::chrono::milliseconds announce_time{250};     // from saying that we drain to refusing requests
  LeaderOptions leader;
  GenerateServiceOptions service;
  ReplicaLeaseOptions lease;
};

/// Where a leader listens.
struct LeaderAddresses {
  rpc::Address inference;
  std::optional<rpc::Address> metrics;
};

/// A number that moves while the engine is alive.
using LifeSign = std::function<uint64_t()>;

/// Serves until a stop signal or the coordinator's STOP, then drains: what runs may finish within
/// `drain_timeout`, a second signal cuts it off. `on_ready` is called once the server listens. Call it on the
/// engine's thread. OK after an orderly end, when the stop plan has been sent. UNAVAILABLE and
/// FAILED_PRECONDITION: could not listen, the stop plan has been sent as well. ABORTED: without a coordinator
/// for longer than lease.give_up_after; drained, but no stop plan has been sent (Leader::abandon). Any other
/// error is a broken engine's.
absl::Status run_leader_process(StepEngine& engine, const LifeSign& life_sign, const ServedModel& model,
                                const LeaderProcessOptions& options, const StopSignal& stop_signal,
                                const std::function<void(const LeaderAddresses&)>& on_ready);

/// What a leader reports of itself.
v1::ReplicaReport replica_report(const LeaderStatus& status, const ServingMetrics& metrics);

}  // namespace trireme::worker
