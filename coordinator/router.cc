#include "coordinator/router.h"

#include <algorithm>
#include <tuple>

namespace trireme {

std::optional<size_t> choose_replica(const std::vector<ReplicaView>& replicas) {
  if (replicas.empty()) return std::nullopt;
  const auto least = std::min_element(replicas.begin(), replicas.end(), [](const auto& a, const auto& b) {
    return std::make_tuple(a.outstanding + a.waiting, a.last_chosen) <
           std::make_tuple(b.outstanding + b.waiting, b.last_chosen);
  });
  return static_cast<size_t>(least - replicas.begin());
}

}  // namespace trireme
