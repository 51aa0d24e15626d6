#pragma once
// From the engine's tokens to a client's messages.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "engine/base/request_limits.h"
#include "engine/request.h"
#include "trireme/v1/inference.pb.h"
#include "worker/sample_stream.h"

namespace trireme::worker {

/// The text side of one request, all its samples together. What has not been taken yet is coalesced into one
/// delta per sample. One thread at a time.
class ResponseBuilder {
 public:
  /// `tokenizer` may be null: then there is no text. `prompt` is the first message, but for
  /// num_cached_tokens and logprobs.
  ResponseBuilder(const Tokenizer* tokenizer, const ResponseOptions& options, v1::PromptInfo prompt,
                  int32_t num_samples = 1);

  /// Before any append(): what other replicas have produced (SampleStream::resume). States that passed the
  /// validator. The violation, when tokens follow the end of their sample.
  std::optional<FieldViolation> resume(const std::vector<ResumeFields>& states,
                                       const StoppingParams& stopping);
  /// Tokens behind the end of their sample are ignored.
  void append(const TokenOutput& output);
  /// No further token counts: the engine said so, or a stop string has appeared, in each sample.
  bool finished() const { return num_unfinished_ == 0; }
  bool finished(size_t sample) const { return samples_[sample].finished(); }
  size_t num_samples() const { return samples_.size(); }
  /// INTERNAL once the engine met numbers that are none.
  const absl::Status& error() const { return error_; }

  /// The next message, if there is one: the prompt first, then all tokens so far, with the usage on the last.
  /// A sample's finish reason comes with its last tokens.
  bool next(v1::GenerateResponse& message);
  /// next() has given the last message.
  bool complete() const { return complete_; }
  /// Of the tokens that next() would give, about.
  size_t pending_bytes() const;

 private:
  void fill_usage(v1::Usage& usage) const;

  v1::PromptInfo prompt_;
  int32_t num_prompt_tokens_;
  std::vector<SampleStream> samples_;
  size_t num_unfinished_;
  bool awaits_logprobs_;  // of the prompt
  absl::Status error_;
  int32_t num_cached_tokens_ = 0;
  bool started_ = false;
  bool prompt_taken_ = false;
  bool complete_ = false;
};

}  // namespace trireme::worker
