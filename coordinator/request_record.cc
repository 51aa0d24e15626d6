#include "coordinator/request_record.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace trireme {
namespace {

constexpr int kUnknown = 2;      // grpc::StatusCode::UNKNOWN
constexpr int kMaxSamples = 64;  // more than any validator lets through

double seconds(RequestRecord::Clock::duration time) { return std::chrono::duration<double>(time).count(); }

std::string milliseconds(RequestRecord::Clock::duration time) {
  return absl::StrFormat("%.3f", seconds(time) * 1e3);
}

}  // namespace

void RelayMetrics::count_end(int code) {
  const bool known = code >= 0 && code < static_cast<int>(ended.size());
  ended[static_cast<size_t>(known ? code : kUnknown)].add();
}

void RequestRecord::routed(const std::string& replica_id, bool is_resume, Clock::time_point now) {
  if (replica_ids_.empty()) {
    routing_time_ = now - arrival_;
    metrics_.routing_time.observe(seconds(routing_time_));
    first_call_ = now;
  }
  earlier_time_ = now - first_call_;
  num_earlier_tokens_ = num_tokens_;
  if (is_resume) {
    ++num_resumes_;
    metrics_.resumes.add();
  }
  replica_ids_.push_back(replica_id);
}

void RequestRecord::passed_on(const v1::GenerateResponse& message, Clock::time_point now) {
  for (const v1::Delta& delta : message.deltas()) {
    const int num_tokens = delta.token_ids_size();
    if (num_tokens == 0 || delta.index() < 0 || delta.index() >= kMaxSamples) continue;
    metrics_.output_tokens.add(num_tokens);
    num_tokens_ += num_tokens;
    if (!std::exchange(has_token_, true)) metrics_.time_to_first_token.observe(seconds(now - arrival_));
    const auto sample = static_cast<size_t>(delta.index());
    if (last_token_.size() <= sample) last_token_.resize(sample + 1);
    Clock::time_point& last = last_token_[sample];
    if (last != Clock::time_point{}) metrics_.inter_token.observe(seconds(now - last));
    for (int i = 1; i < num_tokens; ++i) metrics_.inter_token.observe(0);
    last = now;
  }
}

void RequestRecord::ended(int code, Clock::time_point now) {
  metrics_.count_end(code);
  if (code == 0) metrics_.end_to_end.observe(seconds(now - arrival_));
}

RequestRecord::Metadata RequestRecord::metadata() const {
  if (replica_ids_.empty()) return {};
  Metadata pairs = {{"trireme-routing-ms", milliseconds(routing_time_)},
                    {"trireme-replicas", absl::StrJoin(replica_ids_, ",")},
                    {"trireme-resumes", absl::StrCat(num_resumes_)}};
  if (replica_ids_.size() > 1) {
    pairs.emplace_back("trireme-earlier-ms", milliseconds(earlier_time_));
    pairs.emplace_back("trireme-earlier-tokens", absl::StrCat(num_earlier_tokens_));
  }
  return pairs;
}

}  // namespace trireme
