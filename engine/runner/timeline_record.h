#pragma once
// What a rank remembers of its recent past, in memory taken once.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>
#include <vector>

namespace trireme {

enum class Phase : uint8_t {
  idle,
  schedule,
  broadcast,
  upload,
  compute,
  collective,
  sample,
  finish,
  host,
  none
};
inline constexpr int kNumPhases = 9;  // without none

/// In lower case, as metrics and traces say it.
constexpr std::string_view phase_name(Phase phase) {
  constexpr std::string_view names[] = {"idle",       "schedule", "broadcast", "upload", "compute",
                                        "collective", "sample",   "finish",    "host",   "none"};
  return names[static_cast<size_t>(phase)];
}

/// Who waits for whom: all for all; rank 0 for all; all for rank 0.
enum class CollectiveKind : uint8_t { none, all_reduce, gather, broadcast };

constexpr std::string_view collective_name(CollectiveKind kind) {
  constexpr std::string_view names[] = {"none", "all_reduce", "gather", "broadcast"};
  return names[static_cast<size_t>(kind)];
}

/// One phase of a step, or one whole step (phase none), on one rank. Travels as it lies in memory.
struct TimelineRecord {
  int64_t begin_ns = 0;  // on the rank's steady clock
  int64_t end_ns = 0;
  uint64_t step = 0;
  uint32_t collective = 0;  // its number, from 1; 0: none
  int16_t layer = -1;       // of a collective; -1: outside the layers
  Phase phase = Phase::none;
  CollectiveKind kind = CollectiveKind::none;
};
static_assert(sizeof(TimelineRecord) == 32 && std::is_trivially_copyable_v<TimelineRecord>,
              "no padding may travel");

/// The last `capacity` records that were pushed. Takes memory only when it is made. One thread.
class TimelineRing {
 public:
  explicit TimelineRing(size_t capacity = 0) : records_(capacity) {}

  bool enabled() const { return !records_.empty(); }
  void push(const TimelineRecord& record) {
    if (records_.empty()) return;
    records_[next_] = record;
    next_ = next_ + 1 < records_.size() ? next_ + 1 : 0;
    ++count_;
  }
  /// Ever pushed.
  uint64_t count() const { return count_; }
  /// Those that are left of what was pushed after the first `count`, oldest first.
  std::vector<TimelineRecord> after(uint64_t count) const {
    const size_t wanted = count < count_ ? static_cast<size_t>(count_ - count) : 0;
    const size_t kept = std::min(wanted, records_.size());
    std::vector<TimelineRecord> result;
    result.reserve(kept);
    for (size_t age = kept; age > 0; --age)
      result.push_back(records_[(next_ + records_.size() - age) % records_.size()]);
    return result;
  }

 private:
  std::vector<TimelineRecord> records_;
  size_t next_ = 0;
  uint64_t count_ = 0;
};

}  // namespace trireme
