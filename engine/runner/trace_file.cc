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
      : replica_(replica), ranks_(ranks) {
    compare_collectives(ranks, [this](const ComparedCollective& collective) {
      for (const auto& part : collective.parts) wait_end_[part.record] = part.wait_end_ns;
    });
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
    for (size_t rank = 0; rank < ranks_.size(); ++rank) write_rank(rank);
    text_ += "\n]}\n";
    return std::move(text_);
  }

 private:
  void begin_event() {
    if (!first_) text_ += ",\n";
    first_ = false;
  }
  void name(const char* what, size_t rank, const std::string& text) {
    begin_event();
    absl::StrAppendFormat(&text_,
                          "{\"name\":\"%s\",\"ph\":\"M\",\"pid\":%d,\"tid\":%d,\"args\":{\"name\":%s}}", what,
                          replica_.index, rank, quoted(text));
  }

  /// Times in nanoseconds, as microseconds with all their digits.
  void event(size_t rank, std::string_view what, const char* category, int64_t begin, int64_t end,
             const std::string& arguments) {
    begin_event();
    const int64_t length = std::max<int64_t>(end - begin, 0);
    absl::StrAppendFormat(&text_,
                          "{\"name\":\"%s\",\"cat\":\"%s\",\"ph\":\"X\",\"ts\":%d.%03d,\"dur\":%d.%03d,"
                          "\"pid\":%d,\"tid\":%d,\"args\":{%s}}",
                          what, category, begin / 1000, begin % 1000, length / 1000, length % 1000,
                          replica_.index, rank, arguments);
  }

  void write_rank(size_t rank) {
    const RankTimeline& timeline = ranks_[rank];
    std::vector<const TimelineRecord*> ordered;
    ordered.reserve(timeline.records.size());
    for (const TimelineRecord& record : timeline.records) ordered.push_back(&record);
    // A record is made at its end: a step behind its phases.
    std::stable_sort(ordered.begin(), ordered.end(), [](const TimelineRecord* a, const TimelineRecord* b) {
      return a->begin_ns != b->begin_ns ? a->begin_ns < b->begin_ns : a->end_ns > b->end_ns;
    });
    for (const TimelineRecord* record : ordered) write_record(rank, *record);
  }

  void write_record(size_t rank, const TimelineRecord& record) {
    const ClockOffset& clock = ranks_[rank].clock;
    const int64_t begin = clock.to_ours(record.begin_ns), end = clock.to_ours(record.end_ns);
    std::string arguments = absl::StrCat("\"step\":", record.step);
    if (record.phase == Phase::none) return event(rank, "step", "step", begin, end, arguments);
    if (record.phase != Phase::collective || record.collective == 0)
      return event(rank, phase_name(record.phase), "phase", begin, end, arguments);
    absl::StrAppend(&arguments, ",\"collective\":", record.collective, ",\"layer\":", record.layer);
    event(rank, collective_name(record.kind), "collective", begin, end, arguments);
    const auto compared = wait_end_.find(&record);
    if (compared == wait_end_.end()) return;
    event(rank, "waiting", "wait", begin, compared->second, arguments);
    event(rank, "transfer", "wait", compared->second, end, arguments);
  }

  const TraceReplica& replica_;
  const std::vector<RankTimeline>& ranks_;
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
