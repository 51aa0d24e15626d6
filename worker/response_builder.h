#pragma once
// From the engine's tokens to a client's messages.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/request.h"
#include "engine/tokenizer/incremental_decoder.h"
#include "engine/tokenizer/stop_matcher.h"
#include "trireme/v1/inference.pb.h"

namespace trireme::worker {

struct ResponseOptions {
  bool include_special_tokens = false;
  bool logprobs = false;  // the chosen token's
  int32_t min_tokens = 0;
  std::vector<std::string> stop;
};

/// The text side of one request. Tokens may come one at a time or in numbers; what has not been taken yet is
/// coalesced into one delta. One thread at a time.
class ResponseBuilder {
 public:
  /// `tokenizer` may be null: then there is no text. `prompt` is the first message, but for
  /// num_cached_tokens.
  ResponseBuilder(const Tokenizer* tokenizer, ResponseOptions options, v1::PromptInfo prompt);

  /// Tokens behind the end are ignored.
  void append(const TokenOutput& output);
  /// No further token counts: the engine said so, or a stop string has appeared.
  bool finished() const { return finished_; }
  /// INTERNAL once the engine met numbers that are none.
  const absl::Status& error() const { return error_; }

  /// The next message, if there is one: the prompt first, then all tokens so far, with the finish reason and
  /// the usage on the last.
  bool next(v1::GenerateResponse& message);
  /// next() has given the last message.
  bool complete() const { return complete_; }
  /// Of the tokens that next() would give, about.
  size_t pending_bytes() const;

 private:
  void append_text(std::string_view piece);
  void finish(FinishReason reason);

  const ResponseOptions options_;
  v1::PromptInfo prompt_;
  const int32_t num_prompt_tokens_;
  std::optional<IncrementalDecoder> decoder_;
  StopMatcher stop_matcher_;
  v1::Delta delta_;
  absl::Status error_;
  int32_t num_tokens_ = 0;
  int32_t num_cached_tokens_ = 0;
  bool started_ = false;
  bool prompt_taken_ = false;
  bool finished_ = false;
  bool complete_ = false;
};

}  // namespace trireme::worker
