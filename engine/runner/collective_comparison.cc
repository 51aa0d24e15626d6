#include "engine/runner/collective_comparison.h"

#include <algorithm>

namespace trireme {
namespace {

/// Numbers wrap after 2^32.
bool is_before(uint32_t a, uint32_t b) { return static_cast<int32_t>(a - b) < 0; }

/// One position in each rank's records, moved on together.
class Cursors {
 public:
  explicit Cursors(std::span<const RankTimeline> ranks) : ranks_(ranks), next_(ranks.size(), 0) { skip(); }

  /// The next collective of all ranks; false when there is none.
  bool take(ComparedCollective& collective) {
    if (!align()) return false;
    for (size_t rank = 0; rank < ranks_.size(); ++rank) {
      const TimelineRecord& record = ranks_[rank].records[next_[rank]++];
      const ClockOffset& clock = ranks_[rank].clock;
      const int64_t begin = clock.to_ours(record.begin_ns);
      collective.parts[rank] = {&record, begin, begin, clock.to_ours(record.end_ns)};
    }
    skip();
    return true;
  }

 private:
  bool at_end(size_t rank) const { return next_[rank] == ranks_[rank].records.size(); }
  uint32_t number(size_t rank) const { return ranks_[rank].records[next_[rank]].collective; }
  /// Over records that are no collectives.
  void skip() {
    for (size_t rank = 0; rank < ranks_.size(); ++rank)
      while (!at_end(rank) && number(rank) == 0) ++next_[rank];
  }
  /// To the first number that all have.
  bool align() {
    for (size_t rank = 0; rank < ranks_.size();) {
      if (at_end(rank)) return false;
      if (rank > 0 && is_before(number(rank), number(0))) {
        ++next_[rank];
        skip();
      } else if (rank > 0 && is_before(number(0), number(rank))) {
        ++next_[0];
        skip();
        rank = 0;
      } else {
        ++rank;
      }
    }
    return true;
  }

  std::span<const RankTimeline> ranks_;
  std::vector<size_t> next_;
};

void find_waiting(ComparedCollective& collective) {
  const int64_t root = collective.parts[0].begin_ns;
  const CollectiveKind kind = collective.parts[0].record->kind;
  int64_t last = root;
  for (const auto& part : collective.parts) last = std::max(last, part.begin_ns);
  for (size_t rank = 0; rank < collective.parts.size(); ++rank) {
    auto& part = collective.parts[rank];
    const bool for_all = kind == CollectiveKind::all_reduce || (kind == CollectiveKind::gather && rank == 0);
    int64_t awaited = for_all ? last : rank == 0 ? part.begin_ns : root;
    // What it sent was taken before rank 0 came.
    if (kind == CollectiveKind::gather && rank > 0 && awaited > part.end_ns) awaited = part.begin_ns;
    part.wait_end_ns = std::clamp(awaited, part.begin_ns, std::max(part.begin_ns, part.end_ns));
  }
}

}  // namespace

void compare_collectives(std::span<const RankTimeline> ranks,
                         const std::function<void(const ComparedCollective&)>& visit) {
  if (ranks.empty()) return;
  Cursors cursors(ranks);
  ComparedCollective collective;
  collective.parts.resize(ranks.size());
  while (cursors.take(collective)) {
    find_waiting(collective);
    visit(collective);
  }
}

std::vector<WaitingTotals> sum_waiting(std::span<const RankTimeline> ranks) {
  std::vector<WaitingTotals> totals(ranks.size());
  compare_collectives(ranks, [&totals](const ComparedCollective& collective) {
    for (size_t rank = 0; rank < totals.size(); ++rank) {
      const auto& part = collective.parts[rank];
      ++totals[rank].num_compared;
      totals[rank].spent_ns += part.end_ns - part.begin_ns;
      totals[rank].waited_ns += part.wait_end_ns - part.begin_ns;
    }
  });
  return totals;
}

}  // namespace trireme
