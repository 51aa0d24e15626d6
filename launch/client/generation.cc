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

std::string Generation::add(const v1::GenerateResponse& message, Clock::time_point now) {
  if (message.has_prompt()) prompt_ = message.prompt();
  if (message.has_usage()) usage_ = message.usage();
  std::string added;
  for (const v1::Delta& delta : message.deltas()) {
    if (delta.index() != 0) continue;
    token_ids_.insert(token_ids_.end(), delta.token_ids().begin(), delta.token_ids().end());
    arrivals_.resize(token_ids_.size(), now);
    added += delta.text();
    if (delta.has_finish_reason()) finish_reason_ = delta.finish_reason();
  }
  text_ += added;
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
  return arrivals_.empty() ? -1 : milliseconds(arrivals_.front() - started_);
}

double Generation::total_ms() const { return milliseconds(ended_ - started_); }

double Generation::tokens_per_s() const { return total_ms() > 0 ? num_tokens() * 1e3 / total_ms() : 0; }

std::string Generation::summary() const {
  std::string line = absl::StrFormat("%d tokens in %.2f s", num_tokens(), total_ms() / 1e3);
  if (num_tokens() > 0) line += absl::StrFormat(": %.1f tokens/s, TTFT %.1f ms", tokens_per_s(), ttft_ms());
  const std::string reason = finish_reason_name(finish_reason_);
  return reason.empty() ? line : line + ", finish: " + reason;
}

nlohmann::json Generation::to_json() const {
  std::vector<double> itl_ms;
  for (size_t i = 1; i < arrivals_.size(); ++i)
    itl_ms.push_back(milliseconds(arrivals_[i] - arrivals_[i - 1]));
  nlohmann::json timing = {
      {"total_ms", total_ms()}, {"tokens_per_s", tokens_per_s()}, {"itl_ms", std::move(itl_ms)}};
  if (!arrivals_.empty()) timing["ttft_ms"] = ttft_ms();
  return {{"request_id", prompt_.request_id()},
          {"model", prompt_.model()},
          {"seed", prompt_.seed()},
          {"prompt_token_ids", std::vector<int32_t>(prompt_.token_ids().begin(), prompt_.token_ids().end())},
          {"token_ids", token_ids_},
          {"text", text_},
          {"finish_reason", finish_reason_name(finish_reason_)},
          {"usage",
           {{"prompt_tokens", usage_.prompt_tokens()},
            {"completion_tokens", usage_.completion_tokens()},
            {"cached_tokens", usage_.cached_tokens()}}},
          {"timing", std::move(timing)},
          {"receipt", receipt_}};
}

}  // namespace trireme::client
