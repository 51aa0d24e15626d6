#include "coordinator/membership.h"

#include "proto/support/endpoint.h"

namespace trireme {
namespace {

v1::ReplicaState wire_state(ReplicaPhase phase) {
  switch (phase) {
    case ReplicaPhase::joining:
      return v1::REPLICA_STATE_UNSPECIFIED;
    case ReplicaPhase::serving:
      return v1::REPLICA_STATE_SERVING;
    case ReplicaPhase::draining:
      return v1::REPLICA_STATE_DRAINING;
  }
  return v1::REPLICA_STATE_UNSPECIFIED;
}

}  // namespace

ModelIdentity model_identity(const v1::ModelInfo& model) {
  return {model.name(), model.config_hash(), model.tokenizer_hash(), model.compute_dtype()};
}

void Membership::on_serving_change(std::function<void(bool)> callback) {
  std::lock_guard lock(serving_mutex_);
  serving_change_ = std::move(callback);
  serving_ = registry_.num_serving() > 0;
  serving_change_(serving_);
}

void Membership::refresh_serving() {
  std::lock_guard lock(serving_mutex_);
  const bool serving = registry_.num_serving() > 0;
  if (serving == serving_ || !serving_change_) return;
  serving_ = serving;
  serving_change_(serving);
}

absl::StatusOr<LeaseId> Membership::join(const v1::ReplicaRegistration& registration,
                                         const std::string& address) {
  ReplicaDescription description;
  description.replica_id = registration.replica_id();
  description.incarnation = registration.incarnation();
  description.model = model_identity(registration.model());
  description.vocab_size = registration.model().vocab_size();
  description.max_context_len = registration.max_context_len();
  const absl::StatusOr<LeaseId> lease = registry_.admit(description);
  if (!lease.ok()) return lease;
  auto link = std::make_shared<ReplicaLink>();
  link->lease = *lease;
  link->registration = registration;
  link->address = address;
  const std::shared_ptr<grpc::Channel> channel = rpc::create_channel(address);
  channel->GetState(/*try_to_connect=*/true);  // the first request finds it connected
  link->stub = v1::Inference::NewStub(channel);
  std::lock_guard lock(mutex_);
  members_[*lease].link = std::move(link);
  return lease;
}

void Membership::activate(LeaseId lease) {
  registry_.activate(lease);
  refresh_serving();
  if (activation_) activation_();
}

void Membership::drain(LeaseId lease) {
  registry_.drain(lease);
  refresh_serving();
}

void Membership::drain_all() {
  registry_.drain_all();
  refresh_serving();
}

void Membership::report(LeaseId lease, const v1::ReplicaLoad& load) {
  registry_.report(lease, load.waiting_requests());
  std::lock_guard lock(mutex_);
  const auto member = members_.find(lease);
  if (member != members_.end()) member->second.load = load;
}

void Membership::leave(LeaseId lease) {
  {
    std::lock_guard lock(mutex_);
    if (members_.erase(lease) == 0) return;
  }
  registry_.end(lease);
  refresh_serving();
  if (lease_end_) lease_end_(lease);
}

std::unique_ptr<Assignment> Membership::assign(const RouteWish& wish) {
  while (const std::optional<LeaseId> lease = registry_.acquire(wish)) {
    std::lock_guard lock(mutex_);
    const auto member = members_.find(*lease);
    if (member != members_.end()) return std::make_unique<Assignment>(registry_, member->second.link);
    registry_.end(*lease);  // leave() is between its two steps: finish the second, and choose again
  }
  return nullptr;
}

std::vector<v1::ReplicaStatus> Membership::describe() const {
  const std::vector<ReplicaRecord> records = registry_.snapshot();
  std::vector<v1::ReplicaStatus> statuses;
  std::lock_guard lock(mutex_);
  for (const ReplicaRecord& record : records) {
    const auto member = members_.find(record.lease);
    if (member == members_.end()) continue;
    const v1::ReplicaRegistration& registration = member->second.link->registration;
    v1::ReplicaStatus& status = statuses.emplace_back();
    status.set_replica_id(registration.replica_id());
    status.set_address(member->second.link->address);
    status.set_state(wire_state(record.phase));
    *status.mutable_load() = member->second.load;
    status.set_tensor_parallel_size(registration.tensor_parallel_size());
    status.set_backend(registration.backend());
    *status.mutable_ranks() = registration.ranks();
    status.set_incarnation(registration.incarnation());
    status.set_job_id(registration.job_id());
    status.set_outstanding_requests(static_cast<int32_t>(record.outstanding));
    status.set_metrics_address(registration.metrics_address());
    status.set_routed_requests(record.routed);
  }
  return statuses;
}

}  // namespace trireme
