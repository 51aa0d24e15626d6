#include "coordinator/router.h"

#include <algorithm>
#include <tuple>

namespace trireme {
namespace {

constexpr size_t kChunksPerRequest = 4;
constexpr int64_t kMaxLead = 8;

}  // namespace

std::optional<size_t> choose_replica(const std::vector<ReplicaView>& replicas) {
  if (replicas.empty()) return std::nullopt;
  const auto least = std::min_element(replicas.begin(), replicas.end(), [](const auto& a, const auto& b) {
    return std::make_tuple(a.load(), a.last_chosen) < std::make_tuple(b.load(), b.last_chosen);
  });
  return static_cast<size_t>(least - replicas.begin());
}

int64_t allowed_lead(size_t matched) {
  if (matched == 0) return 0;
  return std::min(1 + static_cast<int64_t>(matched / kChunksPerRequest), kMaxLead);
}

std::optional<size_t> Router::choose(const std::vector<ReplicaView>& replicas, const PromptChunks& chunks) {
  const std::optional<size_t> least = choose_replica(replicas);
  if (!least) return std::nullopt;
  size_t longest = 0;
  size_t chosen = *least;
  for (size_t i = 0; i < replicas.size(); ++i) {
    const size_t matched = history_.match(chunks, replicas[i].replica);
    const bool better = matched > longest ||
                        (matched > 0 && matched == longest && replicas[i].load() < replicas[chosen].load());
    if (!better) continue;
    longest = matched;
    chosen = i;
  }
  const ReplicaView& favourite = replicas[chosen];
  const bool too_far_ahead = favourite.load() - replicas[*least].load() > allowed_lead(longest);
  if (too_far_ahead || (favourite.waiting > 0 && replicas[*least].waiting == 0)) chosen = *least;
  history_.record(chunks, replicas[chosen].replica);
  return chosen;
}

}  // namespace trireme
