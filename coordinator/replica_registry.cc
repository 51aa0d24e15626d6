#include "coordinator/replica_registry.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace trireme {
namespace {

constexpr size_t kMaxHistory = 4096;  // incarnations remembered for fencing

absl::Status differs(const char* what, const std::string& live, const std::string& got,
                     const std::string& replica_id) {
  return absl::FailedPreconditionError(
      absl::StrCat(what, " differs: replica ", replica_id, " serves '", live, "', got '", got, "'"));
}

bool is_any_of(const ReplicaDescription& replica, const std::vector<Incarnation>& incarnations) {
  return std::any_of(incarnations.begin(), incarnations.end(), [&](const Incarnation& incarnation) {
    return incarnation.replica_id == replica.replica_id && incarnation.incarnation == replica.incarnation;
  });
}

}  // namespace

absl::Status ReplicaRegistry::check_model(const ModelIdentity& model) const {
  std::lock_guard lock(mutex_);
  return check_model_locked(model);
}

absl::Status ReplicaRegistry::check_model_locked(const ModelIdentity& model) const {
  if (leases_.empty()) return absl::OkStatus();
  const ReplicaDescription& other = leases_.begin()->second.record.description;
  const ModelIdentity& live = other.model;
  if (model.name != live.name) return differs("model", live.name, model.name, other.replica_id);
  if (model.config_hash != live.config_hash)
    return differs("config hash", live.config_hash, model.config_hash, other.replica_id);
  if (model.tokenizer_hash != live.tokenizer_hash)
    return differs("tokenizer hash", live.tokenizer_hash, model.tokenizer_hash, other.replica_id);
  if (model.compute_dtype != live.compute_dtype)
    return differs("compute dtype", live.compute_dtype, model.compute_dtype, other.replica_id);
  return absl::OkStatus();
}

absl::Status ReplicaRegistry::check_incarnation_locked(const ReplicaDescription& description) const {
  for (const auto& [lease, entry] : leases_) {
    const ReplicaDescription& live = entry.record.description;
    if (live.replica_id == description.replica_id)
      return absl::FailedPreconditionError(absl::StrCat("replica ", live.replica_id,
                                                        " is live as incarnation ", live.incarnation,
                                                        "; got incarnation ", description.incarnation));
  }
  bool seen = false;
  std::string last;
  for (const auto& [replica_id, incarnation] : history_) {
    if (replica_id != description.replica_id) continue;
    seen = seen || incarnation == description.incarnation;
    last = incarnation;
  }
  if (seen && last != description.incarnation)
    return absl::FailedPreconditionError(absl::StrCat("replica ", description.replica_id, ": incarnation ",
                                                      description.incarnation, " was replaced by ", last));
  return absl::OkStatus();
}

void ReplicaRegistry::remember_locked(const ReplicaDescription& description) {
  std::pair<std::string, std::string> name(description.replica_id, description.incarnation);
  if (std::find(history_.begin(), history_.end(), name) != history_.end()) return;
  history_.push_back(std::move(name));
  if (history_.size() > kMaxHistory) history_.pop_front();
}

ReplicaRegistry::Entry* ReplicaRegistry::find_locked(LeaseId lease) {
  const auto found = leases_.find(lease);
  return found == leases_.end() ? nullptr : &found->second;
}

absl::StatusOr<LeaseId> ReplicaRegistry::admit(const ReplicaDescription& description) {
  std::lock_guard lock(mutex_);
  if (absl::Status status = check_incarnation_locked(description); !status.ok()) return status;
  if (absl::Status status = check_model_locked(description.model); !status.ok()) return status;
  remember_locked(description);
  const LeaseId lease = next_lease_++;
  Entry& entry = leases_[lease];
  entry.record.lease = lease;
  entry.record.description = description;
  return lease;
}

void ReplicaRegistry::activate(LeaseId lease) {
  std::lock_guard lock(mutex_);
  Entry* entry = find_locked(lease);
  if (entry && entry->record.phase == ReplicaPhase::joining) entry->record.phase = ReplicaPhase::serving;
}

void ReplicaRegistry::drain(LeaseId lease) {
  std::lock_guard lock(mutex_);
  if (Entry* entry = find_locked(lease)) entry->record.phase = ReplicaPhase::draining;
}

void ReplicaRegistry::drain_all() {
  std::lock_guard lock(mutex_);
  for (auto& [lease, entry] : leases_) entry.record.phase = ReplicaPhase::draining;
}

void ReplicaRegistry::report(LeaseId lease, int64_t waiting) {
  std::lock_guard lock(mutex_);
  // A replica's own number: negative nonsense must not attract every request.
  if (Entry* entry = find_locked(lease)) entry->record.waiting = std::max<int64_t>(waiting, 0);
}

void ReplicaRegistry::end(LeaseId lease) {
  std::lock_guard lock(mutex_);
  if (leases_.erase(lease) > 0) router_.forget(lease);
}

std::optional<LeaseId> ReplicaRegistry::acquire(const RouteWish& wish) {
  std::lock_guard lock(mutex_);
  std::vector<ReplicaView> views;
  std::vector<Entry*> entries;
  for (auto& [lease, entry] : leases_) {
    if (entry.record.phase != ReplicaPhase::serving || is_any_of(entry.record.description, wish.excluded))
      continue;
    views.push_back({lease, entry.record.outstanding, entry.record.waiting, entry.last_chosen});
    entries.push_back(&entry);
  }
  const std::optional<size_t> chosen = router_.choose(views, wish.prompt);
  if (!chosen) return std::nullopt;
  Entry& entry = *entries[*chosen];
  ++entry.record.outstanding;
  ++entry.record.routed;
  entry.last_chosen = ++num_choices_;
  return entry.record.lease;
}

void ReplicaRegistry::release(LeaseId lease) {
  std::lock_guard lock(mutex_);
  if (Entry* entry = find_locked(lease)) --entry->record.outstanding;
}

bool ReplicaRegistry::is_live(LeaseId lease) const {
  std::lock_guard lock(mutex_);
  return leases_.count(lease) > 0;
}

int ReplicaRegistry::num_serving() const {
  std::lock_guard lock(mutex_);
  return static_cast<int>(std::count_if(leases_.begin(), leases_.end(), [](const auto& lease) {
    return lease.second.record.phase == ReplicaPhase::serving;
  }));
}

std::string ReplicaRegistry::model_name() const {
  std::lock_guard lock(mutex_);
  return leases_.empty() ? "" : leases_.begin()->second.record.description.model.name;
}

RequestLimits ReplicaRegistry::limits(RequestLimits limits) const {
  std::lock_guard lock(mutex_);
  limits.vocab_size = limits.max_context_len = 0;
  for (const auto& [lease, entry] : leases_) {
    if (entry.record.phase != ReplicaPhase::serving) continue;
    const ReplicaDescription& replica = entry.record.description;
    limits.vocab_size = replica.vocab_size;
    if (limits.max_context_len == 0 || replica.max_context_len < limits.max_context_len)
      limits.max_context_len = replica.max_context_len;
  }
  return limits;
}

std::vector<ReplicaRecord> ReplicaRegistry::snapshot() const {
  std::lock_guard lock(mutex_);
  std::vector<ReplicaRecord> records;
  for (const auto& [lease, entry] : leases_) records.push_back(entry.record);
  return records;
}

}  // namespace trireme
