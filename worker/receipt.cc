#include "worker/receipt.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace trireme::worker {

namespace {

double seconds(int64_t nanoseconds) { return static_cast<double>(nanoseconds) * 1e-9; }

std::string milliseconds(int64_t nanoseconds) {
  return absl::StrFormat("%.3f", static_cast<double>(std::max<int64_t>(nanoseconds, 0)) * 1e-6);
}

FinishReason reason_of(v1::FinishReason reason) {
  switch (reason) {
    case v1::FINISH_REASON_LENGTH:
      return FinishReason::length;
    case v1::FINISH_REASON_STOP:
      return FinishReason::stop;
    case v1::FINISH_REASON_CANCELLED:
      return FinishReason::cancelled;
    default:
      return FinishReason::none;
  }
}

}  // namespace

void Receipt::submitted(int32_t num_prompt_tokens, bool resumed) {
  submitted_ = true;
  num_prompt_tokens_ = num_prompt_tokens;
  metrics_.queued_prompt_tokens.add(num_prompt_tokens);
  if (resumed) metrics_.resumed.add();
}

void Receipt::observe(const v1::GenerateResponse& message) {
  if (message.has_prompt()) {
    has_prompt_ = true;
    num_cached_tokens_ = message.prompt().num_cached_tokens();
  }
  int32_t num_tokens = 0;
  for (const v1::Delta& delta : message.deltas()) {
    num_tokens += delta.token_ids_size();
    if (!delta.has_finish_reason()) continue;
    const FinishReason reason = reason_of(delta.finish_reason());
    metrics_.finished[static_cast<size_t>(reason)].add();
    was_cancelled_ = was_cancelled_ || reason == FinishReason::cancelled;
  }
  if (num_tokens > 0 && first_message_ns_ == 0) {
    first_message_ns_ = steady_ns();
    metrics_.time_to_first_token.observe(seconds(first_message_ns_ - arrival_ns_));
  }
  num_tokens_sent_ += num_tokens;
  num_completion_tokens_ = message.has_usage() ? message.usage().completion_tokens() : num_tokens_sent_;
}

void Receipt::succeeded() {
  metrics_.succeeded.add();
  if (was_cancelled_) return metrics_.cancelled.add();
  observe_times();
}

void Receipt::cancelled() { metrics_.cancelled.add(); }

void Receipt::failed(int status_code) {
  CodeCounters& counters = submitted_ ? metrics_.failed : metrics_.rejected;
  counters[static_cast<size_t>(std::clamp<int>(status_code, 0, static_cast<int>(counters.size()) - 1))].add();
}

void Receipt::observe_times() {
  const int64_t now = steady_ns();
  const int64_t started = times_.started_ns, first = times_.first_token_ns, last = times_.last_token_ns;
  metrics_.end_to_end.observe(seconds(now - arrival_ns_));
  metrics_.prompt_tokens.observe(num_prompt_tokens_);
  metrics_.output_tokens.observe(num_completion_tokens_);
  if (num_tokens_sent_ > 1)
    metrics_.time_per_output_token.observe(seconds(now - first_message_ns_) / (num_tokens_sent_ - 1));
  if (started == 0) return;
  metrics_.queue_time.observe(seconds(started - arrival_ns_));
  if (first == 0) return;
  metrics_.prefill_time.observe(seconds(first - started));
  metrics_.decode_time.observe(seconds(last - first));
}

std::vector<std::pair<std::string, std::string>> Receipt::metadata() const {
  std::vector<std::pair<std::string, std::string>> pairs;
  const int64_t started = times_.started_ns, first = times_.first_token_ns, last = times_.last_token_ns;
  if (started != 0) pairs.emplace_back("trireme-queue-ms", milliseconds(started - arrival_ns_));
  if (started != 0 && first != 0) {
    pairs.emplace_back("trireme-prefill-ms", milliseconds(first - started));
    pairs.emplace_back("trireme-decode-ms", milliseconds(last - first));
    pairs.emplace_back("trireme-collective-ms", milliseconds(times_.collective_ns));
  }
  if (!submitted_) return pairs;
  pairs.emplace_back("trireme-prompt-tokens", absl::StrCat(num_prompt_tokens_));
  if (has_prompt_) pairs.emplace_back("trireme-cached-tokens", absl::StrCat(num_cached_tokens_));
  pairs.emplace_back("trireme-completion-tokens", absl::StrCat(num_completion_tokens_));
  return pairs;
}

}  // namespace trireme::worker
