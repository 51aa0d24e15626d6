#include "launch/client/generation.h"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"

namespace trireme::client {
namespace {

double milliseconds(Generation::Clock::duration duration) {
  return std::chrono::duration<double, std::milli>(duration).count();
}

nlohmann::json entry_json(const v1::TokenLogprob& entry) {
  return {{"token_id", entry.token_id()}, {"logprob", entry.logprob()}};
}

/// One object per token; null for one that has no log probability.
template <typename List>
nlohmann::json logprobs_json(const List& list) {
  nlohmann::json result = nlohmann::json::array();
  for (const v1::Logprobs& logprobs : list) {
    nlohmann::json& token = result.emplace_back();
    if (!logprobs.has_chosen()) continue;
    token = entry_json(logprobs.chosen());
    token["top"] = nlohmann::json::array();
    for (const v1::TokenLogprob& entry : logprobs.top()) token["top"].push_back(entry_json(entry));
  }
  return result;
}

}  // namespace

std::string finish_reason_name(v1::FinishReason reason) {
  switch (reason) {
    case v1::FINISH_REASON_LENGTH:
      return "length";
    case v1::FINISH_REASON_STOP:
      return "stop";
    case v1::FINISH_REASON_CANCELLED:
      return "cancelled";
    default:
      return "";
  }
}

int Generation::num_tokens() const {
  size_t sum = 0;
  for (const Sample& sample : samples_) sum += sample.token_ids.size();
  return static_cast<int>(sum);
}

std::string Generation::add(const v1::GenerateResponse& message, Clock::time_point now) {
  if (message.has_prompt()) prompt_ = message.prompt();
  if (message.has_usage()) usage_ = message.usage();
  std::string added;
  for (const v1::Delta& delta : message.deltas()) {
    if (delta.index() < 0 || static_cast<size_t>(delta.index()) >= samples_.size()) continue;
    Sample& sample = samples_[static_cast<size_t>(delta.index())];
    sample.token_ids.insert(sample.token_ids.end(), delta.token_ids().begin(), delta.token_ids().end());
    sample.arrivals.resize(sample.token_ids.size(), now);
    sample.logprobs.insert(sample.logprobs.end(), delta.logprobs().begin(), delta.logprobs().end());
    sample.text += delta.text();
    if (delta.index() == 0) added += delta.text();
    if (delta.has_finish_reason()) sample.finish_reason = delta.finish_reason();
  }
  return added;
}

void Generation::add_receipt(const std::multimap<grpc::string_ref, grpc::string_ref>& trailing_metadata) {
  constexpr std::string_view kPrefix = "trireme-";
  for (const auto& [name, text] : trailing_metadata) {
    std::string key(name.data(), name.size());
    if (key.rfind(kPrefix, 0) != 0) continue;
    key.erase(0, kPrefix.size());
    std::replace(key.begin(), key.end(), '-', '_');
    const std::string value(text.data(), text.size());
    double number = 0;
    int64_t count = 0;
    if (absl::SimpleAtoi(value, &count))
      receipt_[key] = count;
    else if (absl::SimpleAtod(value, &number) && std::isfinite(number))
      receipt_[key] = number;
    else
      receipt_[key] = value;
  }
}

double Generation::ttft_ms() const {
  double first = -1;
  for (const Sample& sample : samples_) {
    if (sample.arrivals.empty()) continue;
    const double time = milliseconds(sample.arrivals.front() - started_);
    if (first < 0 || time < first) first = time;
  }
  return first;
}

double Generation::total_ms() const { return milliseconds(ended_ - started_); }

double Generation::tokens_per_s() const { return total_ms() > 0 ? num_tokens() * 1e3 / total_ms() : 0; }

std::string Generation::summary() const {
  std::string line = absl::StrFormat("%d tokens in %.2f s", num_tokens(), total_ms() / 1e3);
  if (num_tokens() > 0) line += absl::StrFormat(": %.1f tokens/s, TTFT %.1f ms", tokens_per_s(), ttft_ms());
  const std::string reason = finish_reason_name(samples_.front().finish_reason);
  if (samples_.size() > 1) return line + absl::StrFormat(", %d samples", samples_.size());
  return reason.empty() ? line : line + ", finish: " + reason;
}

nlohmann::json Generation::Sample::itl_ms() const {
  std::vector<double> gaps;
  for (size_t i = 1; i < arrivals.size(); ++i) gaps.push_back(milliseconds(arrivals[i] - arrivals[i - 1]));
  return gaps;
}

nlohmann::json Generation::to_json() const {
  const Sample& first = samples_.front();
  nlohmann::json timing = {
      {"total_ms", total_ms()}, {"tokens_per_s", tokens_per_s()}, {"itl_ms", first.itl_ms()}};
  if (ttft_ms() >= 0) timing["ttft_ms"] = ttft_ms();
  nlohmann::json json = {
      {"request_id", prompt_.request_id()},
      {"model", prompt_.model()},
      {"seed", prompt_.seed()},
      {"prompt_token_ids", std::vector<int32_t>(prompt_.token_ids().begin(), prompt_.token_ids().end())},
      {"token_ids", first.token_ids},
      {"text", first.text},
      {"finish_reason", finish_reason_name(first.finish_reason)},
      {"usage",
       {{"prompt_tokens", usage_.prompt_tokens()},
        {"completion_tokens", usage_.completion_tokens()},
        {"cached_tokens", usage_.cached_tokens()}}},
      {"timing", std::move(timing)},
      {"receipt", receipt_}};
  if (!first.logprobs.empty()) json["logprobs"] = logprobs_json(first.logprobs);
  if (prompt_.logprobs_size() > 0) json["prompt_logprobs"] = logprobs_json(prompt_.logprobs());
  for (size_t i = 0; i < samples_.size() && samples_.size() > 1; ++i) {
    const Sample& sample = samples_[i];
    json["samples"].push_back({{"index", i},
                               {"token_ids", sample.token_ids},
                               {"text", sample.text},
                               {"finish_reason", finish_reason_name(sample.finish_reason)},
                               {"itl_ms", sample.itl_ms()}});
    if (!sample.logprobs.empty()) json["samples"].back()["logprobs"] = logprobs_json(sample.logprobs);
  }
  return json;
}

}  // namespace trireme::client
