#pragma once
// Which replica a request goes to: policy alone. No gRPC, no clock, no lock.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace trireme {

/// What the policy knows of a replica that takes requests.
struct ReplicaView {
  int64_t outstanding = 0;   // requests relayed to it by this coordinator and not ended yet
  int64_t waiting = 0;       // requests that waited there for their first step, as it last reported
  uint64_t last_chosen = 0;  // larger is later; 0: never
};

/// The index of the least loaded replica: the smallest outstanding + waiting. A request that waits counts
/// twice, since a replica with a queue is full while one with the same number running may not be. Among
/// equals the one chosen longest ago, so that an idle cluster takes turns. nullopt when there are none.
std::optional<size_t> choose_replica(const std::vector<ReplicaView>& replicas);

}  // namespace trireme
