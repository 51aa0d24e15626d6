#include "engine/parallel/clock_alignment.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"

namespace trireme {
namespace {

constexpr int kRounds = 12;

int64_t steady_ns() {
  const auto time = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time).count();
}

/// Differs with every start of a kernel; empty where it does not say.
std::string boot_id() {
  std::string id;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> id;
  return id;
}

}  // namespace

ClockOffset estimate_clock_offset(std::span<const ClockSample> samples) {
  TRIREME_CHECK(!samples.empty());
  ClockSample shortest = samples.front();
  int64_t least = shortest.remote_ns - shortest.received_ns, most = shortest.remote_ns - shortest.sent_ns;
  for (const ClockSample& sample : samples) {
    if (sample.received_ns - sample.sent_ns < shortest.received_ns - shortest.sent_ns) shortest = sample;
    least = std::max(least, sample.remote_ns - sample.received_ns);
    most = std::min(most, sample.remote_ns - sample.sent_ns);
  }
  if (least > most) {
    least = shortest.remote_ns - shortest.received_ns;
    most = shortest.remote_ns - shortest.sent_ns;
  }
  const int64_t width = most - least;
  return {least + width / 2, (width + 1) / 2};
}

ClockAlignment::ClockAlignment(HostGroup& group, Now now)
    : group_(group), now_(now != nullptr ? now : &steady_ns) {
  if (group.rank() == 0) offsets_.resize(group.size());
  common_ = group.size() == 1;
}

absl::Status ClockAlignment::align(std::chrono::milliseconds deadline) {
  if (common_) return absl::OkStatus();
  if (absl::Status status = ping(deadline); !status.ok()) return status;
  if (!first_) return absl::OkStatus();
  first_ = false;
  return compare_kernels(deadline);
}

absl::Status ClockAlignment::ping(std::chrono::milliseconds deadline) {
  std::vector<std::vector<ClockSample>> samples(offsets_.size());
  std::vector<int32_t> words;
  for (int round = 0; round < kRounds; ++round) {
    words.assign(1, round);
    const int64_t sent = now_();
    if (absl::Status status = group_.broadcast(words, 0, deadline); !status.ok()) return status;
    const int64_t read = now_();
    const std::string mine(reinterpret_cast<const char*>(&read), sizeof(read));
    const auto clocks = group_.gather(mine, 0, deadline);
    if (!clocks.ok()) return clocks.status();
    const int64_t received = now_();
    for (size_t rank = 1; rank < clocks->size(); ++rank) {
      int64_t remote = 0;
      if ((*clocks)[rank].size() != sizeof(remote)) {
        return absl::InternalError(absl::StrCat("clock of rank ", rank, ": got ", (*clocks)[rank].size(),
                                                " bytes, wanted ", sizeof(remote)));
      }
      std::memcpy(&remote, (*clocks)[rank].data(), sizeof(remote));
      samples[rank].push_back({sent, remote, received});
    }
  }
  for (size_t rank = 1; rank < samples.size(); ++rank) offsets_[rank] = estimate_clock_offset(samples[rank]);
  return absl::OkStatus();
}

absl::Status ClockAlignment::compare_kernels(std::chrono::milliseconds deadline) {
  const auto ids = group_.gather(boot_id(), 0, deadline);
  if (!ids.ok()) return ids.status();
  std::vector<int32_t> words(1, 1);
  // The same kernel can still show a shifted clock: in a time namespace.
  for (size_t rank = 0; rank < ids->size(); ++rank) {
    const bool same = !(*ids)[0].empty() && (*ids)[rank] == (*ids)[0] &&
                      std::abs(offsets_[rank].offset_ns) <= offsets_[rank].error_ns;
    if (!same) words[0] = 0;
  }
  if (absl::Status status = group_.broadcast(words, 0, deadline); !status.ok()) return status;
  common_ = !words.empty() && words[0] != 0;
  if (common_) std::fill(offsets_.begin(), offsets_.end(), ClockOffset{});
  return absl::OkStatus();
}

}  // namespace trireme
