#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <unordered_map>
#include <vector>

#include "coordinator/prompt_chunks.h"

namespace trireme {

/// Which replicas were sent which beginnings of prompts: a guess at what is in their prefix caches. Bounded;
/// what was not seen for longest is forgotten first. No locks.
class RoutingHistory {
 public:
  /// 65,536 chunks of 64 tokens are 4 million tokens, more than the caches of a node's replicas together, in
  /// about 8 MB.
  static constexpr size_t kDefaultMaxChunks = 65'536;

  explicit RoutingHistory(size_t max_chunks = kDefaultMaxChunks) : max_chunks_(max_chunks) {}

  void record(const PromptChunks& chunks, uint64_t replica);
  /// How many of the first chunks a replica has been sent, one after the other.
  size_t match(const PromptChunks& chunks, uint64_t replica) const;
  /// It is gone, and its cache with it. Walks through everything.
  void forget(uint64_t replica);

  size_t num_chunks() const { return chunks_.size(); }

 private:
  struct Chunk {
    uint64_t hash = 0;
    std::vector<uint64_t> replicas;
  };

  const size_t max_chunks_;
  std::list<Chunk> chunks_;  // latest first
  std::unordered_map<uint64_t, std::list<Chunk>::iterator> index_;
};

}  // namespace trireme
