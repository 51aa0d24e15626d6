#pragma once
// Whether a trace file holds together.

#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

namespace trireme::testing {

/// What was found in a trace: `error` is empty when every event is complete, events of a rank come in order
/// of their beginning, and each one ends before the next begins or lies within one it may lie in: phases and
/// collectives in steps, waiting and transfer in collectives. So no two phases of a rank overlap.
struct TraceSummary {
  std::string error;
  std::map<std::pair<int, int>, std::map<std::string, int>>
      events;  // by (pid, tid), by "category name" and category
};

class TraceChecker {
 public:
  TraceSummary check(const std::string& text) {
    const auto json = nlohmann::json::parse(text, nullptr, false);
    if (!json.is_object() || !json.contains("traceEvents")) return {"no JSON object with traceEvents", {}};
    for (const auto& event : json["traceEvents"]) {
      if (!summary_.error.empty()) break;
      const std::string kind = event.value("ph", "");
      if (kind == "X")
        take(event);
      else if (kind != "M")
        summary_.error = "neither complete nor metadata: " + event.dump();
    }
    return std::move(summary_);
  }

 private:
  struct Open {
    int64_t end_ns = 0;
    int depth = 0;
  };
  static int64_t ns(const nlohmann::json& event, const char* key) {
    return std::llround(event.value(key, -1.0) * 1000);
  }
  static int depth(const std::string& category) {
    return category == "step"                                ? 0
           : category == "phase" || category == "collective" ? 1
           : category == "wait"                              ? 2
                                                             : -1;
  }

  void take(const nlohmann::json& event) {
    const int64_t begin = ns(event, "ts"), length = ns(event, "dur");
    const std::string category = event.value("cat", "");
    const bool complete = begin >= 0 && length >= 0 && depth(category) >= 0 && event.contains("args") &&
                          event["args"].contains("step");
    if (!complete) return fail("incomplete", event);
    const std::pair<int, int> track{event.value("pid", -1), event.value("tid", -1)};
    if (begin < begins_[track]) return fail("out of order", event);
    begins_[track] = begin;
    std::vector<Open>& open = open_[track];
    while (!open.empty() && open.back().end_ns <= begin) open.pop_back();
    if (!open.empty() && begin + length > open.back().end_ns)
      return fail("crosses the end of another", event);
    if (!open.empty() && depth(category) <= open.back().depth) return fail("overlaps its like", event);
    if (depth(category) == 2 && length > 0 && (open.empty() || open.back().depth != 1))
      return fail("outside a collective", event);
    open.push_back({begin + length, depth(category)});
    ++summary_.events[track][category + " " + event.value("name", "")];
    ++summary_.events[track][category];
  }
  void fail(const std::string& what, const nlohmann::json& event) {
    summary_.error = what + ": " + event.dump();
  }

  TraceSummary summary_;
  std::map<std::pair<int, int>, int64_t> begins_;
  std::map<std::pair<int, int>, std::vector<Open>> open_;
};

inline TraceSummary check_trace(const std::string& text) { return TraceChecker().check(text); }

}  // namespace trireme::testing
