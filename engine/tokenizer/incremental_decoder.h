#pragma once
// Tokens to text, one at a time: never half a character, and the pieces add up to what decode() gives for all
// ids.

#include <cstdint>
#include <string>
#include <vector>

#include "engine/tokenizer/tokenizer.h"

namespace trireme {

/// The state of one stream. Text after k tokens is a pure function of the first k ids, so a stream can be
/// resumed from its ids alone. One thread.
class IncrementalDecoder {
 public:
  /// `tokenizer` must outlive it.
  IncrementalDecoder(const Tokenizer& tokenizer, bool skip_special_tokens);

  /// The text that became certain with this token; may be empty. Incomplete UTF-8 is held back, at most 3
  /// bytes of it.
  std::string append(int32_t id);
  /// What is still held back; incomplete characters become U+FFFD. Call once, at the end.
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  bool skip_special_tokens_;
  std::vector<int32_t> ids_;
  size_t prefix_begin_ = 0;  // ids_[prefix_begin_, read_end_) gives context to the decoder
  size_t read_end_ = 0;      // ids_[0, read_end_) have been handed out
};

}  // namespace trireme
