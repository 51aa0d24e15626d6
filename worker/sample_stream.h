#pragma once
// From one sample's tokens to its deltas: text, stop strings, logprobs.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/request.h"
#include "engine/tokenizer/incremental_decoder.h"
#include "engine/tokenizer/stop_matcher.h"
#include "trireme/v1/inference.pb.h"

namespace trireme::worker {

struct ResponseOptions {
  bool include_special_tokens = false;
  bool logprobs = false;         // the chosen token's, and the top ones that come with it
  bool prompt_logprobs = false;  // the prompt's come with some output: the first message waits for them
  int32_t min_tokens = 0;
  std::vector<std::string> stop;
};

/// Tokens may come one at a time or in numbers; what has not been taken yet is coalesced into one delta. Text
/// after k tokens is a pure function of the first k ids. One thread at a time.
class SampleStream {
 public:
  /// `tokenizer` may be null: then there is no text. It must outlive the stream.
  SampleStream(const Tokenizer* tokenizer, ResponseOptions options, int32_t index);

  /// Takes the sample up where another replica left it, before any append(): nothing of `token_ids` is given
  /// again, nor the text that was certain with them. Where they end the sample (a stop token, a stop string,
  /// max_tokens), the delta is its finish reason and what the end releases; with `finished`, nothing is ever
  /// given. False when tokens follow the one that ends it: num_tokens() then counts up to that one.
  bool resume(const std::vector<int32_t>& token_ids, const StoppingParams& stopping, bool finished);
  /// Tokens behind the end are ignored.
  void append(const TokenOutput& output);

  /// No further token counts.
  bool finished() const { return finished_; }
  /// There is something to take.
  bool has_delta() const { return !delta_.token_ids().empty() || delta_.has_finish_reason(); }
  v1::Delta take_delta();
  int32_t num_tokens() const { return num_tokens_; }
  /// Of what take_delta() would give, about.
  size_t pending_bytes() const;

 private:
  void append_token(int32_t token_id);
  void end_if(FinishReason reason);
  void append_text(std::string_view piece);
  void finish(FinishReason reason);

  ResponseOptions options_;
  int32_t index_;
  std::optional<IncrementalDecoder> decoder_;
  StopMatcher stop_matcher_;
  v1::Delta delta_;
  size_t num_pending_logprobs_ = 0;  // in delta_, top ones included
  int32_t num_tokens_ = 0;
  bool finished_ = false;
};

}  // namespace trireme::worker
