#pragma once
// The ranks' clocks on one axis: that of rank 0.

#include <chrono>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "engine/parallel/process_group.h"

namespace trireme {

/// One ping: the other rank read its clock some time between these two readings of ours.
struct ClockSample {
  int64_t sent_ns = 0;
  int64_t remote_ns = 0;
  int64_t received_ns = 0;
};

/// Another rank's clock minus ours, within +- error_ns.
struct ClockOffset {
  int64_t offset_ns = 0;
  int64_t error_ns = 0;
  int64_t to_ours(int64_t remote_ns) const { return remote_ns - offset_ns; }
};

/// Each ping confines the offset to [remote - received, remote - sent]; the answer is the middle of what all
/// of them leave, which is never wider than the ping with the least round trip. Where they contradict each
/// other (a clock was set, or ran away) that one ping decides. At least one sample. Source of the bound:
/// D. L. Mills, RFC 5905, section 8.
ClockOffset estimate_clock_offset(std::span<const ClockSample> samples);

/// Measures the offsets of a group's steady clocks. Ranks of one running kernel read the same clock: where
/// the pings agree with that the offset is 0 and exact, and they are not repeated. One thread.
class ClockAlignment {
 public:
  using Now = int64_t (*)();
  explicit ClockAlignment(HostGroup& group, Now now = nullptr);

  /// Collective over the group; clocks of several hosts drift by some 10 us each second, so call it again.
  absl::Status align(std::chrono::milliseconds deadline);
  /// By rank; on rank 0 only.
  const std::vector<ClockOffset>& offsets() const { return offsets_; }
  /// Whether all ranks read one clock.
  bool common() const { return common_; }

 private:
  absl::Status ping(std::chrono::milliseconds deadline);
  absl::Status compare_kernels(std::chrono::milliseconds deadline);

  HostGroup& group_;
  const Now now_;
  std::vector<ClockOffset> offsets_;
  bool first_ = true;
  bool common_ = false;
};

}  // namespace trireme
