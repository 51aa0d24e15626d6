#include "engine/runner/trace_file.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <map>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace trireme {
namespace {

/// A JSON string with its quotes.
std::string quoted(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
}

class TraceWriter {
 public:
  TraceWriter(const TraceReplica& replica, const std::vector<RankTimeline>& ranks)
      : replica_(replica), ranks_(ranks), devices_(ranks) {
    for (RankTimeline& device : devices_) device.records.swap(device.device_records);
    compare(ranks_);
    compare(devices_);
  }

  std::string write() {
    text_ = "{\"displayTimeUnit\":\"ms\",\"metadata\":{\"replica\":" + quoted(replica_.id) + ",\"ranks\":[";
    for (size_t rank = 0; rank < ranks_.size(); ++rank) {
      absl::StrAppendFormat(&text_,
                            "%s{\"rank\":%d,\"host\":%s,\"clock_offset_ns\":%d,\"clock_error_ns\":%d}",
                            rank > 0 ? "," : "", rank, quoted(ranks_[rank].host),
                            ranks_[rank].clock.offset_ns, ranks_[rank].clock.error_ns);
    }
    text_ += "]},\"traceEvents\":[\n";
    name("process_name", 0, "replica " + replica_.id);
    for (size_t rank = 0; rank < ranks_.size(); ++rank)
      name("thread_name", rank, absl::StrCat("rank ", rank, " on ", ranks_[rank].host));
    for (size_t rank = 0; rank < ranks_.size(); ++rank) write_rank(ranks_[rank], rank);
    for (size_t rank = 0; rank < ranks_.size(); ++rank) {
      if (devices_[rank].records.empty()) continue;
      const size_t track = ranks_.size() + rank;
      name("thread_name", track, absl::StrCat("rank ", rank, "'s device, steps with marks"));
      write_rank(devices_[rank], track);
    }
    text_ += "\n]}\n";
    return std::move(text_);
  }

 private:
  void compare(const std::vector<RankTimeline>& timelines) {
    compare_collectives(timelines, [this](const ComparedCollective& collective) {
      for (const auto& part : collective.parts) wait_end_[part.record] = part.wait_end_ns;
    });
  }
  void begin_event() {
    if (!first_) text_ += ",\n";
    first_ = false;
  }
  void name(const char* what, size_t track, const std::string& text) {
    begin_event();
    absl::StrAppendFormat(&text_,
                          "{\"name\":\"%s\",\"ph\":\"M\",\"pid\":%d,\"tid\":%d,\"args\":{\"name\":%s}}", what,
                          replica_.index, track, quoted(text));
  }

  /// Times in nanoseconds, as microseconds with all their digits.
  void event(size_t track, std::string_view what, const char* category, int64_t begin, int64_t end,
             const std::string& arguments) {
    begin_event();
    const int64_t length = std::max<int64_t>(end - begin, 0);
    absl::StrAppendFormat(&text_,
                          "{\"name\":\"%s\",\"cat\":\"%s\",\"ph\":\"X\",\"ts\":%d.%03d,\"dur\":%d.%03d,"
                          "\"pid\":%d,\"tid\":%d,\"args\":{%s}}",
                          what, category, begin / 1000, begin % 1000, length / 1000, length % 1000,
                          replica_.index, track, arguments);
  }

  void write_rank(const RankTimeline& timeline, size_t track) {
    std::vector<const TimelineRecord*> ordered;
    ordered.reserve(timeline.records.size());
    for (const TimelineRecord& record : timeline.records) ordered.push_back(&record);
    // A record is made at its end: a step behind its phases.
    std::stable_sort(ordered.begin(), ordered.end(), [](const TimelineRecord* a, const TimelineRecord* b) {
      return a->begin_ns != b->begin_ns ? a->begin_ns < b->begin_ns : a->end_ns > b->end_ns;
    });
    for (const TimelineRecord* record : ordered) write_record(timeline.clock, track, *record);
  }

  void write_record(const ClockOffset& clock, size_t track, const TimelineRecord& record) {
    const int64_t begin = clock.to_ours(record.begin_ns), end = clock.to_ours(record.end_ns);
    std::string arguments = absl::StrCat("\"step\":", record.step);
    if (record.phase == Phase::none) return event(track, "step", "step", begin, end, arguments);
    if (record.phase != Phase::collective || record.collective == 0)
      return event(track, phase_name(record.phase), "phase", begin, end, arguments);
    absl::StrAppend(&arguments, ",\"collective\":", record.collective, ",\"layer\":", record.layer);
    event(track, collective_name(record.kind), "collective", begin, end, arguments);
    const auto compared = wait_end_.find(&record);
    if (compared == wait_end_.end()) return;
    event(track, "waiting", "wait", begin, compared->second, arguments);
    event(track, "transfer", "wait", compared->second, end, arguments);
  }

  const TraceReplica& replica_;
  const std::vector<RankTimeline>& ranks_;
  std::vector<RankTimeline> devices_;  // their device's records in the place of the host's
  std::map<const TimelineRecord*, int64_t> wait_end_;
  std::string text_;
  bool first_ = true;
};

}  // namespace

std::string chrome_trace(const TraceReplica& replica, const std::vector<RankTimeline>& ranks) {
  return TraceWriter(replica, ranks).write();
}

absl::Status write_trace(const std::string& path, const TraceReplica& replica,
                         const std::vector<RankTimeline>& ranks) {
  const auto failed = [&path] { return absl::ErrnoToStatus(errno, "trace: cannot write " + path); };
  // A pipe or a device cannot be replaced.
  std::error_code none;
  const auto there = std::filesystem::status(path, none);
  const bool replaceable = !std::filesystem::exists(there) || std::filesystem::is_regular_file(there);
  const std::string target = replaceable ? path + ".partial" : path;
  std::FILE* file = std::fopen(target.c_str(), "wb");
  if (file == nullptr) return failed();
  const std::string text = chrome_trace(replica, ranks);
  const bool written = std::fwrite(text.data(), 1, text.size(), file) == text.size();
  const bool closed = std::fclose(file) == 0;
  if (written && closed && (!replaceable || std::rename(target.c_str(), path.c_str()) == 0))
    return absl::OkStatus();
  const absl::Status error = failed();
  if (replaceable) std::remove(target.c_str());
  return error;
}

}  // namespace trireme
