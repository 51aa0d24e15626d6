#pragma once
// One streamed generation as the client sees it: tokens, text, finish reason, usage, and when they came.

#include <chrono>
#include <map>
#include <string>
#include <vector>

#include <grpcpp/support/string_ref.h>
#include <nlohmann/json.hpp>

#include "trireme/v1/inference.pb.h"

namespace trireme::client {

/// Collects the messages of one Generate call. Times are the client's own, from the start of the call,
/// queueing and network included. Not thread-safe.
class Generation {
 public:
  using Clock = std::chrono::steady_clock;

  /// `started`: just before the call was made.
  explicit Generation(Clock::time_point started, int num_samples = 1)
      : started_(started), samples_(static_cast<size_t>(num_samples)) {}

  /// Takes over one message that arrived `now`; returns the text it adds to sample 0.
  std::string add(const v1::GenerateResponse& message, Clock::time_point now);
  /// The stream has ended.
  void end(Clock::time_point now) { ended_ = now; }
  /// Takes over the receipt of a call that has ended: keys without "trireme-", '-' as '_'; numbers as such.
  void add_receipt(const std::multimap<grpc::string_ref, grpc::string_ref>& trailing_metadata);

  /// Of all samples together.
  int num_tokens() const;
  size_t num_samples() const { return samples_.size(); }
  const std::string& text(size_t sample) const { return samples_[sample].text; }
  const v1::PromptInfo& prompt() const { return prompt_; }

  /// Milliseconds to the first token, -1 when none came.
  double ttft_ms() const;
  double total_ms() const;
  /// Over the whole call: tokens that arrive together would make any shorter window meaningless.
  double tokens_per_s() const;
  /// "23 tokens in 0.41 s: 56.1 tokens/s, TTFT 12.1 ms, finish: length".
  std::string summary() const;
  /// {request_id, model, seed, prompt_token_ids, token_ids, text, finish_reason, usage, timing{ttft_ms,
  /// total_ms, tokens_per_s, itl_ms[]}, receipt}. itl_ms has one gap per token after the first; tokens of one
  /// message follow each other at 0. Of several samples, these are the first one's, but for ttft_ms and
  /// tokens_per_s, which are those of all; `samples` [n] then has {index, token_ids, text, finish_reason,
  /// itl_ms[]} of each. Where log probabilities came, there are also logprobs (in each sample too) and
  /// prompt_logprobs, one {token_id, logprob, top[{token_id, logprob}]} per token; the prompt's first, which
  /// nothing precedes, is null.
  nlohmann::json to_json() const;

 private:
  struct Sample {
    std::vector<int32_t> token_ids;
    std::vector<Clock::time_point> arrivals;  // one per token
    std::vector<v1::Logprobs> logprobs;       // one per token, where asked for
    std::string text;
    v1::FinishReason finish_reason = v1::FINISH_REASON_UNSPECIFIED;

    nlohmann::json itl_ms() const;
  };

  Clock::time_point started_, ended_{};
  v1::PromptInfo prompt_;
  v1::Usage usage_;
  std::vector<Sample> samples_;
  nlohmann::json receipt_ = nlohmann::json::object();
};

/// "length", "stop", "cancelled"; "" while unspecified.
std::string finish_reason_name(v1::FinishReason reason);

}  // namespace trireme::client
