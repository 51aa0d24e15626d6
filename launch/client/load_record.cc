#include "launch/client/load_record.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "kernels/check.h"
#include "launch/client/error_report.h"

namespace trireme::client {
namespace {

double milliseconds(LoadTime::duration duration) {
  return std::chrono::duration<double, std::milli>(duration).count();
}

/// Samples of all requests that ended well.
struct Samples {
  std::vector<double> ttft, itl, tpot, e2e;
};

/// The samples of one request; whether it met the targets.
bool add_samples(const CallRecord& record, const GoodputTargets& targets, Samples& samples) {
  const double e2e = milliseconds(record.ended - record.scheduled);
  samples.e2e.push_back(e2e);
  bool good = !targets.e2e_ms || e2e <= *targets.e2e_ms;
  if (record.arrivals.empty()) return good && !targets.ttft_ms && !targets.tpot_ms;
  const double ttft = milliseconds(record.arrivals.front().time - record.scheduled);
  samples.ttft.push_back(ttft);
  good = good && (!targets.ttft_ms || ttft <= *targets.ttft_ms);
  for (size_t i = 0; i < record.arrivals.size(); ++i) {
    const auto& arrival = record.arrivals[i];
    const double gap = i == 0 ? 0 : milliseconds(arrival.time - record.arrivals[i - 1].time);
    const size_t count = static_cast<size_t>(arrival.num_tokens) - (i == 0 ? 1 : 0);
    samples.itl.insert(samples.itl.end(), count, gap / arrival.num_tokens);
  }
  if (record.num_tokens < 2) return good;
  const double tpot = (e2e - ttft) / static_cast<double>(record.num_tokens - 1);
  samples.tpot.push_back(tpot);
  return good && (!targets.tpot_ms || tpot <= *targets.tpot_ms);
}

nlohmann::json to_json(const Distribution& distribution) {
  nlohmann::json json = {{"count", distribution.count}};
  if (distribution.count == 0) return json;
  json.update({{"mean", distribution.mean},
               {"p50", distribution.p50},
               {"p95", distribution.p95},
               {"p99", distribution.p99},
               {"max", distribution.max}});
  return json;
}

std::string line(const char* name, const Distribution& d) {
  if (d.count == 0) return absl::StrFormat("%-12s %10s\n", name, "none");
  return absl::StrFormat("%-12s %10.2f %10.2f %10.2f %10.2f %10.2f %10d\n", name, d.p50, d.p95, d.p99, d.max,
                         d.mean, d.count);
}

}  // namespace

double percentile(const std::vector<double>& sorted, int percent) {
  CHECK_EQ(sorted.empty(), false);
  CHECK_GE(percent, 1);
  const size_t rank = (sorted.size() * static_cast<size_t>(percent) + 99) / 100;  // from 1
  return sorted[std::min(rank, sorted.size()) - 1];
}

Distribution describe_samples(std::vector<double> samples) {
  Distribution result;
  result.count = samples.size();
  if (samples.empty()) return result;
  std::sort(samples.begin(), samples.end());
  result.mean = std::accumulate(samples.begin(), samples.end(), 0.0) / static_cast<double>(samples.size());
  result.p50 = percentile(samples, 50);
  result.p95 = percentile(samples, 95);
  result.p99 = percentile(samples, 99);
  result.max = samples.back();
  return result;
}

absl::StatusOr<GoodputTargets> parse_goodput(const std::string& text) {
  GoodputTargets targets;
  for (const std::string& part : std::vector<std::string>(absl::StrSplit(text, ','))) {
    const std::vector<std::string> halves = absl::StrSplit(part, ':');
    std::optional<double>* target = nullptr;
    if (halves[0] == "ttft") target = &targets.ttft_ms;
    if (halves[0] == "tpot") target = &targets.tpot_ms;
    if (halves[0] == "e2e") target = &targets.e2e_ms;
    double value = 0;
    const bool valid = halves.size() == 2 && target != nullptr && !target->has_value() &&
                       absl::SimpleAtod(halves[1], &value) && value > 0 && value < 1e12;
    if (!valid) {
      return absl::InvalidArgumentError(absl::StrCat(
          "goodput: got '", part.substr(0, 64), "', wanted ttft:MS, tpot:MS or e2e:MS, each at most once"));
    }
    *target = value;
  }
  return targets;
}

LoadReport summarize(const std::vector<CallRecord>& records, const GoodputTargets& targets) {
  LoadReport report;
  report.requests = static_cast<int64_t>(records.size());
  LoadTime begin = LoadTime::max(), end = LoadTime::min();
  Samples samples;
  std::vector<double> send_delays;
  for (const CallRecord& record : records) {
    if (!record.started) {
      ++report.not_started;
      continue;
    }
    begin = std::min(begin, record.scheduled);
    end = std::max(end, record.ended);
    send_delays.push_back(milliseconds(record.sent - record.scheduled));
    if (record.interrupted) {
      ++report.interrupted;
    } else if (!record.status.ok()) {
      ++report.errors;
      const std::string code = code_name(record.status.error_code());
      ++report.errors_by_code[code];
      report.example_by_code.try_emplace(code, describe(record.status));
    } else {
      ++report.ok;
      report.prompt_tokens += record.prompt_tokens;
      report.cached_tokens += record.cached_tokens;
      report.output_tokens += record.num_tokens;
      report.messages += static_cast<int64_t>(record.arrivals.size());
      const bool wrong = record.expected_tokens > 0 && record.num_tokens != record.expected_tokens;
      report.wrong_lengths += wrong ? 1 : 0;
      report.good += add_samples(record, targets, samples) ? 1 : 0;
    }
  }
  if (report.not_started < report.requests)
    report.duration_s = std::chrono::duration<double>(end - begin).count();
  report.ttft_ms = describe_samples(std::move(samples.ttft));
  report.itl_ms = describe_samples(std::move(samples.itl));
  report.tpot_ms = describe_samples(std::move(samples.tpot));
  report.e2e_ms = describe_samples(std::move(samples.e2e));
  report.send_delay_ms = describe_samples(std::move(send_delays));
  return report;
}

nlohmann::json to_json(const LoadReport& report, const GoodputTargets& targets) {
  nlohmann::json json = {{"requests", report.requests},
                         {"ok", report.ok},
                         {"errors", report.errors},
                         {"interrupted", report.interrupted},
                         {"not_started", report.not_started},
                         {"errors_by_code", report.errors_by_code},
                         {"error_examples", report.example_by_code},
                         {"wrong_lengths", report.wrong_lengths},
                         {"duration_s", report.duration_s},
                         {"requests_per_s", report.requests_per_s()},
                         {"output_tokens_per_s", report.output_tokens_per_s()},
                         {"total_tokens_per_s", report.total_tokens_per_s()},
                         {"prompt_tokens", report.prompt_tokens},
                         {"cached_tokens", report.cached_tokens},
                         {"output_tokens", report.output_tokens},
                         {"messages", report.messages},
                         {"ttft_ms", to_json(report.ttft_ms)},
                         {"itl_ms", to_json(report.itl_ms)},
                         {"tpot_ms", to_json(report.tpot_ms)},
                         {"e2e_ms", to_json(report.e2e_ms)},
                         {"send_delay_ms", to_json(report.send_delay_ms)}};
  if (!targets.any()) return json;
  nlohmann::json& goodput = json["goodput"];
  goodput = {{"good", report.good}, {"requests_per_s", report.goodput_per_s()}};
  if (targets.ttft_ms) goodput["targets"]["ttft_ms"] = *targets.ttft_ms;
  if (targets.tpot_ms) goodput["targets"]["tpot_ms"] = *targets.tpot_ms;
  if (targets.e2e_ms) goodput["targets"]["e2e_ms"] = *targets.e2e_ms;
  return json;
}

std::string to_text(const LoadReport& report, const GoodputTargets& targets) {
  std::string text = absl::StrFormat("%d requests in %.2f s: %d ok, %d failed", report.requests,
                                     report.duration_s, report.ok, report.errors);
  if (report.interrupted + report.not_started > 0) {
    absl::StrAppendFormat(&text, ", %d interrupted, %d not started", report.interrupted, report.not_started);
  }
  text += "\n";
  for (const auto& [code, count] : report.errors_by_code) {
    absl::StrAppendFormat(&text, "  %d x %s\n", count, report.example_by_code.at(code));
  }
  if (report.wrong_lengths > 0)
    absl::StrAppendFormat(&text, "  %d answers are not as long as was forced\n", report.wrong_lengths);
  absl::StrAppendFormat(&text, "%.2f requests/s, %.1f output tokens/s, %.1f tokens/s with prompts\n",
                        report.requests_per_s(), report.output_tokens_per_s(), report.total_tokens_per_s());
  const double prompt_tokens = static_cast<double>(std::max<int64_t>(report.prompt_tokens, 1));
  const double messages = static_cast<double>(std::max<int64_t>(report.messages, 1));
  absl::StrAppendFormat(&text, "%.1f %% of the prompt tokens were cached; %.2f tokens per message\n",
                        100 * static_cast<double>(report.cached_tokens) / prompt_tokens,
                        static_cast<double>(report.output_tokens) / messages);
  if (targets.any()) {
    absl::StrAppendFormat(&text, "goodput: %.2f requests/s, %d of %d met every target\n",
                          report.goodput_per_s(), report.good, report.requests);
  }
  absl::StrAppendFormat(&text, "\n%-12s %10s %10s %10s %10s %10s %10s\n", "ms", "P50", "P95", "P99", "max",
                        "mean", "samples");
  text += line("TTFT", report.ttft_ms) + line("ITL", report.itl_ms) + line("TPOT", report.tpot_ms);
  return text + line("end to end", report.e2e_ms) + line("sent late by", report.send_delay_ms);
}

}  // namespace trireme::client
