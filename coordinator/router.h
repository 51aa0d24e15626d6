#pragma once
// Which replica a request goes to: policy alone. No gRPC, no clock, no lock.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "coordinator/routing_history.h"

namespace trireme {

/// What the policy knows of a replica that takes requests.
struct ReplicaView {
  uint64_t replica = 0;      // names it, here and in later calls
  int64_t outstanding = 0;   // requests relayed to it by this coordinator and not ended yet
  int64_t waiting = 0;       // requests that waited there for their first step, as it last reported
  uint64_t last_chosen = 0;  // larger is later; 0: never

  /// A request that waits counts twice, since a replica with a queue is full while one with the same number
  /// running may not be.
  int64_t load() const { return outstanding + waiting; }
};

/// The index of the least loaded replica. Among equals the one chosen longest ago, so that an idle cluster
/// takes turns. nullopt when there are none.
std::optional<size_t> choose_replica(const std::vector<ReplicaView>& replicas);

/// By how many requests a replica may be ahead of the least loaded one and still get a request whose first
/// `matched` chunks it was sent before. Each request more makes its steps a little longer, each chunk saves
/// 64 tokens of prefill: four chunks, a usual prefill chunk of 256 tokens, are worth one request. At most 8,
/// when a batch is half again as slow at worst: from there on a hot prefix is better computed once more
/// elsewhere.
int64_t allowed_lead(size_t matched);

/// Least outstanding work, with prefix affinity: of the replicas that have seen most of the prompt's
/// beginning the least loaded one takes the request, unless it is ahead of the least loaded of all by more
/// than allowed_lead(), or has a queue while that one has none; then that one does, and has seen the prompt,
/// too.
class Router {
 public:
  explicit Router(size_t max_chunks = RoutingHistory::kDefaultMaxChunks) : history_(max_chunks) {}

  /// An index into `replicas`, which it remembers to have been sent the prompt; nullopt when there are none.
  std::optional<size_t> choose(const std::vector<ReplicaView>& replicas, const PromptChunks& chunks);
  void forget(uint64_t replica) { history_.forget(replica); }

  const RoutingHistory& history() const { return history_; }

 private:
  RoutingHistory history_;
};

}  // namespace trireme
