#include "coordinator/routing_history.h"

#include <algorithm>

namespace trireme {
namespace {

bool contains(const std::vector<uint64_t>& replicas, uint64_t replica) {
  return std::find(replicas.begin(), replicas.end(), replica) != replicas.end();
}

}  // namespace

void RoutingHistory::record(const PromptChunks& chunks, uint64_t replica) {
  // Last chunk first, so that a prompt's beginning is the latest of it and outlives its end.
  for (auto hash = chunks.rbegin(); hash != chunks.rend(); ++hash) {
    const auto [place, added] = index_.try_emplace(*hash);
    if (added) {
      chunks_.push_front({*hash, {}});
      place->second = chunks_.begin();
    } else {
      chunks_.splice(chunks_.begin(), chunks_, place->second);
    }
    if (!contains(place->second->replicas, replica)) place->second->replicas.push_back(replica);
  }
  while (chunks_.size() > max_chunks_) {
    index_.erase(chunks_.back().hash);
    chunks_.pop_back();
  }
}

size_t RoutingHistory::match(const PromptChunks& chunks, uint64_t replica) const {
  size_t matched = 0;
  for (const uint64_t hash : chunks) {
    const auto found = index_.find(hash);
    if (found == index_.end() || !contains(found->second->replicas, replica)) break;
    ++matched;
  }
  return matched;
}

void RoutingHistory::forget(uint64_t replica) {
  for (auto chunk = chunks_.begin(); chunk != chunks_.end();) {
    std::erase(chunk->replicas, replica);
    if (chunk->replicas.empty()) {
      index_.erase(chunk->hash);
      chunk = chunks_.erase(chunk);
    } else {
      ++chunk;
    }
  }
}

}  // namespace trireme
