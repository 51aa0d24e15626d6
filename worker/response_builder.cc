#include "worker/response_builder.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "worker/logprobs_message.h"

namespace trireme::worker {

ResponseBuilder::ResponseBuilder(const Tokenizer* tokenizer, const ResponseOptions& options,
                                 v1::PromptInfo prompt, int32_t num_samples)
    : prompt_(std::move(prompt)),
      num_prompt_tokens_(prompt_.token_ids_size()),
      num_unfinished_(static_cast<size_t>(num_samples)),
      awaits_logprobs_(options.prompt_logprobs) {
  samples_.reserve(num_unfinished_);
  for (int32_t i = 0; i < num_samples; ++i) samples_.emplace_back(tokenizer, options, i);
}

std::optional<FieldViolation> ResponseBuilder::resume(const std::vector<ResumeFields>& states,
                                                      const StoppingParams& stopping) {
  for (size_t i = 0; i < states.size(); ++i) {
    SampleStream& sample = samples_[static_cast<size_t>(states[i].index)];
    if (!sample.resume(states[i].token_ids, stopping, states[i].finished)) {
      return FieldViolation{
          absl::StrCat("resume[", i, "].token_ids[", sample.num_tokens(), "]"),
          absl::StrCat("comes after the end of the sample: its token ", sample.num_tokens() - 1,
                       " is a stop token, completes a stop string, or is the last of ", stopping.max_tokens)};
    }
    if (sample.finished()) --num_unfinished_;
  }
  started_ = finished();
  return std::nullopt;
}

void ResponseBuilder::append(const TokenOutput& output) {
  if (!error_.ok()) return;
  CHECK_LT(output.sample_index, samples_.size());
  SampleStream& sample = samples_[output.sample_index];
  if (sample.finished()) return;
  if (output.finish == FinishReason::numerical_error) {
    error_ = absl::InternalError("numerical error: the model's logits are not numbers");
    return;
  }
  if (!std::exchange(started_, true)) num_cached_tokens_ = output.num_cached_tokens;
  if (output.prompt_logprobs() != nullptr && !prompt_taken_) {
    fill_prompt_logprobs(*output.prompt_logprobs(), prompt_);
    awaits_logprobs_ = false;
  }
  sample.append(output);
  if (sample.finished()) --num_unfinished_;
}

bool ResponseBuilder::next(v1::GenerateResponse& message) {
  if (!started_ || complete_) return false;
  if (!prompt_taken_) {
    if (awaits_logprobs_ && !finished()) return false;
    prompt_taken_ = true;
    *message.mutable_prompt() = std::move(prompt_);
    message.mutable_prompt()->set_num_cached_tokens(num_cached_tokens_);
    return true;
  }
  complete_ = finished();
  bool any = complete_;
  for (SampleStream& sample : samples_) {
    if (!sample.has_delta()) continue;
    any = true;
    *message.add_deltas() = sample.take_delta();
  }
  if (complete_) fill_usage(*message.mutable_usage());
  return any;
}

void ResponseBuilder::fill_usage(v1::Usage& usage) const {
  int32_t num_tokens = 0;
  for (const SampleStream& sample : samples_) num_tokens += sample.num_tokens();
  usage.set_prompt_tokens(num_prompt_tokens_);
  usage.set_completion_tokens(num_tokens);
  usage.set_cached_tokens(num_cached_tokens_);
}

size_t ResponseBuilder::pending_bytes() const {
  size_t bytes = 0;
  for (const SampleStream& sample : samples_) bytes += sample.pending_bytes();
  return bytes;
}

}  // namespace trireme::worker
