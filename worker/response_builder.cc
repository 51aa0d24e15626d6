#include "worker/response_builder.h"

#include <utility>

namespace trireme::worker {

namespace {

v1::FinishReason to_proto(FinishReason reason) {
  switch (reason) {
    case FinishReason::length:
      return v1::FINISH_REASON_LENGTH;
    case FinishReason::stop:
      return v1::FINISH_REASON_STOP;
    case FinishReason::cancelled:
      return v1::FINISH_REASON_CANCELLED;
    case FinishReason::none:
    case FinishReason::numerical_error:
      break;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

}  // namespace

ResponseBuilder::ResponseBuilder(const Tokenizer* tokenizer, ResponseOptions options, v1::PromptInfo prompt)
    : options_(std::move(options)),
      prompt_(std::move(prompt)),
      num_prompt_tokens_(prompt_.token_ids_size()),
      stop_matcher_(options_.stop) {
  if (tokenizer != nullptr) decoder_.emplace(*tokenizer, !options_.include_special_tokens);
}

void ResponseBuilder::append(const TokenOutput& output) {
  if (finished_ || !error_.ok()) return;
  if (output.finish == FinishReason::numerical_error) {
    error_ = absl::InternalError("numerical error: the model's logits are not numbers");
    return;
  }
  if (!started_) {
    started_ = true;
    num_cached_tokens_ = output.num_cached_tokens;
  }
  if (output.has_token) {
    ++num_tokens_;
    delta_.add_token_ids(output.token_id);
    if (options_.logprobs) {
      v1::TokenLogprob* chosen = delta_.add_logprobs()->mutable_chosen();
      chosen->set_token_id(output.token_id);
      chosen->set_logprob(output.logprob);
    }
    if (decoder_) append_text(decoder_->append(output.token_id));
  }
  if (stop_matcher_.matched()) {
    finish(FinishReason::stop);
  } else if (output.finish != FinishReason::none) {
    if (decoder_) append_text(decoder_->finish());
    finish(stop_matcher_.matched() ? FinishReason::stop : output.finish);
  }
}

void ResponseBuilder::append_text(std::string_view piece) {
  if (piece.empty()) return;
  delta_.mutable_text()->append(stop_matcher_.append(piece, num_tokens_ >= options_.min_tokens));
}

void ResponseBuilder::finish(FinishReason reason) {
  delta_.mutable_text()->append(stop_matcher_.finish());
  delta_.set_finish_reason(to_proto(reason));
  finished_ = true;
}

bool ResponseBuilder::next(v1::GenerateResponse& message) {
  if (!started_ || complete_) return false;
  if (!prompt_taken_) {
    prompt_taken_ = true;
    *message.mutable_prompt() = std::move(prompt_);
    message.mutable_prompt()->set_num_cached_tokens(num_cached_tokens_);
    return true;
  }
  if (finished_) {
    complete_ = true;
    v1::Usage* usage = message.mutable_usage();
    usage->set_prompt_tokens(num_prompt_tokens_);
    usage->set_completion_tokens(num_tokens_);
    usage->set_cached_tokens(num_cached_tokens_);
  } else if (delta_.token_ids().empty()) {
    return false;
  }
  *message.add_deltas() = std::exchange(delta_, {});
  return true;
}

size_t ResponseBuilder::pending_bytes() const {
  // An id and, where asked for, a logprob with its id take about this much on the wire.
  constexpr size_t kIdBytes = 4, kLogprobBytes = 16;
  return delta_.text().size() + static_cast<size_t>(delta_.token_ids_size()) * kIdBytes +
         static_cast<size_t>(delta_.logprobs_size()) * kLogprobBytes;
}

}  // namespace trireme::worker
