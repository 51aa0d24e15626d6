#pragma once
// Who is alive: a lease for each replica, its last reported load, and the requests relayed to it. Channels
// live beside it (membership.h).

#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "coordinator/router.h"
#include "engine/base/request_limits.h"

namespace trireme {

/// What replicas of one model must agree on.
struct ModelIdentity {
  std::string name;
  std::string config_hash;
  std::string tokenizer_hash;
  std::string compute_dtype;
};

struct ReplicaDescription {
  std::string replica_id;
  std::string incarnation;  // fresh for each start of the replica
  ModelIdentity model;
  int32_t vocab_size = 0;
  int32_t max_context_len = 0;
};

/// One start of a replica.
struct Incarnation {
  std::string replica_id;
  std::string incarnation;
};

/// What a request wants of its replica.
struct RouteWish {
  PromptChunks prompt;
  std::vector<Incarnation> excluded;
};

/// Names one registration; never used again.
using LeaseId = uint64_t;

enum class ReplicaPhase { joining, serving, draining };

struct ReplicaRecord {
  LeaseId lease = 0;
  ReplicaDescription description;
  ReplicaPhase phase = ReplicaPhase::joining;
  int64_t outstanding = 0;  // requests relayed and not ended
  int64_t waiting = 0;      // last report
  int64_t routed = 0;       // requests in this lease
};

/// Thread-safe; no call blocks on anything but its mutex.
class ReplicaRegistry {
 public:
  /// OK when the model is the one the live replicas serve, or there are none. FAILED_PRECONDITION naming what
  /// differs and both values.
  absl::Status check_model(const ModelIdentity& model) const;

  /// A lease in phase `joining`: it counts for agreement, but gets no requests before activate().
  /// FAILED_PRECONDITION: the model differs, a live replica has the same id, or the incarnation was replaced
  /// by a later one of the same id (a process that was stopped and woke up again).
  absl::StatusOr<LeaseId> admit(const ReplicaDescription& description);
  void activate(LeaseId lease);
  /// Takes no new requests from now on.
  void drain(LeaseId lease);
  void drain_all();
  void report(LeaseId lease, int64_t waiting);
  /// The replica is gone. Unknown leases are ignored by this and all calls above.
  void end(LeaseId lease);

  /// Chooses a serving replica that is not excluded (Router) and counts a request on it, which release()
  /// takes back.
  std::optional<LeaseId> acquire(const RouteWish& wish = {});
  void release(LeaseId lease);

  bool is_live(LeaseId lease) const;
  int num_serving() const;
  /// Of the model served; empty when there is no live replica.
  std::string model_name() const;
  /// `limits` with what any serving replica can keep: vocabulary and the smallest context; unknown (0)
  /// without replicas.
  RequestLimits limits(RequestLimits limits = {}) const;
  std::vector<ReplicaRecord> snapshot() const;

 private:
  struct Entry {
    ReplicaRecord record;
    uint64_t last_chosen = 0;
  };

  absl::Status check_model_locked(const ModelIdentity& model) const;
  absl::Status check_incarnation_locked(const ReplicaDescription& description) const;
  void remember_locked(const ReplicaDescription& description);
  Entry* find_locked(LeaseId lease);

  mutable std::mutex mutex_;
  std::map<LeaseId, Entry> leases_;
  Router router_;
  LeaseId next_lease_ = 1;
  uint64_t num_choices_ = 0;
  std::deque<std::pair<std::string, std::string>>
      history_;  // (replica_id, incarnation), first admission first
};

}  // namespace trireme
