#include "engine/tokenizer/incremental_decoder.h"

#include "engine/tokenizer/decoder.h"
#include "engine/tokenizer/tokenizer_impl.h"

namespace trireme {

struct IncrementalDecoder::State {
  const Tokenizer::Impl& tokenizer;
  const bool skip_special_tokens;
  tok::DecodeStream stream;
};

IncrementalDecoder::IncrementalDecoder(const Tokenizer& tokenizer, bool skip_special_tokens)
    : state_(new State{*tokenizer.impl_, skip_special_tokens, tokenizer.impl_->decoder.stream()}) {}
IncrementalDecoder::~IncrementalDecoder() = default;
IncrementalDecoder::IncrementalDecoder(IncrementalDecoder&&) noexcept = default;
IncrementalDecoder& IncrementalDecoder::operator=(IncrementalDecoder&&) noexcept = default;

std::string IncrementalDecoder::append(int32_t id) {
  std::string text;
  const std::string* token = state_->tokenizer.decodable(id, state_->skip_special_tokens);
  if (token != nullptr) state_->stream.append(*token, text);
  return text;
}

std::string IncrementalDecoder::finish() {
  std::string text;
  state_->stream.finish(text);
  return text;
}

}  // namespace trireme
