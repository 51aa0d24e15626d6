#include "engine/runner/telemetry_exchange.h"

#include <unistd.h>

#include <array>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"

namespace trireme {
namespace {

static_assert(std::is_trivially_copyable_v<RankTelemetry>);

std::string host_name() {
  std::array<char, 256> name{};
  ::gethostname(name.data(), name.size() - 1);
  return name.data();
}

void append_records(const std::vector<TimelineRecord>& records, std::string& bytes) {
  bytes.append(reinterpret_cast<const char*>(records.data()), records.size() * sizeof(TimelineRecord));
}

/// The records behind the first `begin` bytes.
absl::StatusOr<std::vector<TimelineRecord>> read_records(const std::string& bytes, size_t begin,
                                                         size_t rank) {
  if (bytes.size() < begin || (bytes.size() - begin) % sizeof(TimelineRecord) != 0) {
    return absl::InternalError(absl::StrCat("telemetry of rank ", rank, ": got ", bytes.size(),
                                            " bytes, wanted ", begin, " and a multiple of ",
                                            sizeof(TimelineRecord)));
  }
  std::vector<TimelineRecord> records((bytes.size() - begin) / sizeof(TimelineRecord));
  if (!records.empty()) std::memcpy(records.data(), bytes.data() + begin, bytes.size() - begin);
  return records;
}

}  // namespace

TelemetryExchange::TelemetryExchange(HostGroup& group, const StepPhases& phases,
                                     std::chrono::milliseconds deadline)
    : group_(group), phases_(phases), deadline_(deadline), clocks_(group) {
  if (group.rank() != 0) return;
  known_.resize(group.size());
  waiting_shares_.resize(group.size());
}

absl::StatusOr<std::vector<RankTelemetry>> TelemetryExchange::report(RankTelemetry own) {
  if (absl::Status aligned = clocks_.align(deadline_); !aligned.ok()) return aligned;
  std::string bytes(reinterpret_cast<const char*>(&own), sizeof(own));
  append_records(phases_.collectives().after(num_told_), bytes);
  num_told_ = phases_.collectives().count();
  const auto messages = group_.gather(bytes, 0, deadline_);
  if (!messages.ok()) return messages.status();
  if (group_.rank() != 0) return std::vector<RankTelemetry>();
  std::vector<RankTelemetry> ranks(messages->size());
  if (absl::Status status = read(*messages, ranks); !status.ok()) return status;
  known_ = ranks;
  return ranks;
}

/// On rank 0.
absl::Status TelemetryExchange::read(const std::vector<std::string>& messages,
                                     std::vector<RankTelemetry>& ranks) {
  std::vector<RankTimeline> timelines(messages.size());
  for (size_t rank = 0; rank < messages.size(); ++rank) {
    auto records = read_records(messages[rank], sizeof(RankTelemetry), rank);
    if (!records.ok()) return records.status();
    timelines[rank].records = *std::move(records);
    timelines[rank].clock = clocks_.offsets()[rank];
    std::memcpy(&ranks[rank], messages[rank].data(), sizeof(RankTelemetry));
  }
  const std::vector<WaitingTotals> waiting = sum_waiting(timelines);
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    RankTelemetry& now = ranks[rank];
    const RankTelemetry& before = known_[rank];
    const int64_t spent = now.times.of(Phase::collective) - before.times.of(Phase::collective);
    const WaitingTotals& seen = waiting[rank];
    double& share = waiting_shares_[rank];
    if (seen.spent_ns > 0) share = static_cast<double>(seen.waited_ns) / static_cast<double>(seen.spent_ns);
    now.collective_wait_ns = before.collective_wait_ns + std::llround(share * static_cast<double>(spent));
    now.num_compared_collectives = before.num_compared_collectives + static_cast<uint64_t>(seen.num_compared);
    now.clock_offset_ns = timelines[rank].clock.offset_ns;
    now.clock_error_ns = timelines[rank].clock.error_ns + now.device_clock_error_ns;
    if (rank > 0) now.clock_error_ns += ranks[0].device_clock_error_ns;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<RankTimeline>> TelemetryExchange::trace() {
  if (absl::Status aligned = clocks_.align(deadline_); !aligned.ok()) return aligned;
  const auto hosts = group_.gather(host_name(), 0, deadline_);
  if (!hosts.ok()) return hosts.status();
  const std::vector<TimelineRecord> of_host = phases_.trace().after(0);
  std::vector<TimelineRecord> of_device = phases_.device_trace().after(0);
  // Few steps have marks: those of long ago have left the host's part.
  std::erase_if(of_device, [&](const TimelineRecord& record) {
    return of_host.empty() || record.begin_ns < of_host.front().begin_ns;
  });
  auto host_records = gather_records(of_host);
  if (!host_records.ok()) return host_records.status();
  auto device_records = gather_records(of_device);
  if (!device_records.ok()) return device_records.status();
  std::vector<RankTimeline> ranks(host_records->size());
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    ranks[rank] = {(*hosts)[rank], clocks_.offsets()[rank], std::move((*host_records)[rank]),
                   std::move((*device_records)[rank])};
  }
  return ranks;
}

/// Of every rank, by rank; on rank 0 only.
absl::StatusOr<std::vector<std::vector<TimelineRecord>>> TelemetryExchange::gather_records(
    const std::vector<TimelineRecord>& own) {
  std::string bytes;
  append_records(own, bytes);
  const auto messages = group_.gather(bytes, 0, deadline_);
  if (!messages.ok()) return messages.status();
  std::vector<std::vector<TimelineRecord>> all;
  for (size_t rank = 0; rank < messages->size(); ++rank) {
    auto records = read_records((*messages)[rank], 0, rank);
    if (!records.ok()) return records.status();
    all.push_back(*std::move(records));
  }
  return all;
}

}  // namespace trireme
