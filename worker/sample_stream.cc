#include "worker/sample_stream.h"

#include <utility>

#include "worker/logprobs_message.h"

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

SampleStream::SampleStream(const Tokenizer* tokenizer, ResponseOptions options, int32_t index)
    : options_(std::move(options)), index_(index), stop_matcher_(options_.stop) {
  if (tokenizer != nullptr) decoder_.emplace(*tokenizer, !options_.include_special_tokens);
}

bool SampleStream::resume(const std::vector<int32_t>& token_ids, const StoppingParams& stopping,
                          bool finished) {
  for (const int32_t id : token_ids) {
    if (finished_) return false;
    append_token(id);
    delta_.clear_text();  // passed on by another replica
    end_if(stop_reason(stopping, num_tokens_, id));
  }
  if (finished) {
    finished_ = true;
    delta_.Clear();
  }
  return true;
}

void SampleStream::append(const TokenOutput& output) {
  if (finished_) return;
  if (output.has_token) {
    delta_.add_token_ids(output.token_id);
    if (options_.logprobs) {
      fill_logprobs({output.token_id, output.logprob}, output.top_logprobs().data(),
                    output.top_logprobs().size(), *delta_.add_logprobs());
      num_pending_logprobs_ += 1 + output.top_logprobs().size();
    }
    append_token(output.token_id);
  }
  end_if(output.finish);
}

void SampleStream::append_token(int32_t token_id) {
  ++num_tokens_;
  if (decoder_) append_text(decoder_->append(token_id));
}

void SampleStream::end_if(FinishReason reason) {
  if (stop_matcher_.matched()) {
    finish(FinishReason::stop);
  } else if (reason != FinishReason::none) {
    if (decoder_) append_text(decoder_->finish());
    finish(stop_matcher_.matched() ? FinishReason::stop : reason);
  }
}

void SampleStream::append_text(std::string_view piece) {
  if (piece.empty()) return;
  delta_.mutable_text()->append(stop_matcher_.append(piece, num_tokens_ >= options_.min_tokens));
}

void SampleStream::finish(FinishReason reason) {
  delta_.mutable_text()->append(stop_matcher_.finish());
  delta_.set_finish_reason(to_proto(reason));
  finished_ = true;
}

v1::Delta SampleStream::take_delta() {
  delta_.set_index(index_);
  num_pending_logprobs_ = 0;
  return std::exchange(delta_, {});
}

size_t SampleStream::pending_bytes() const {
  // An id and, where asked for, a logprob with its id take about this much on the wire.
  constexpr size_t kIdBytes = 4, kLogprobBytes = 16;
  return delta_.text().size() + static_cast<size_t>(delta_.token_ids_size()) * kIdBytes +
         num_pending_logprobs_ * kLogprobBytes;
}

}  // namespace trireme::worker
