#pragma once
// Tokens to text, one at a time: never half a character, and the pieces add up to what decode() gives for all
// ids.

#include <cstdint>
#include <memory>
#include <string>

#include "engine/tokenizer/tokenizer.h"

namespace trireme {

/// The state of one stream. Text after k tokens is a pure function of the first k ids, so a stream can be
/// resumed from its ids alone. The decoder's stages see one token at a time (decode() runs the same ones), so
/// the cost of a token does not depend on those before it. One thread.
class IncrementalDecoder {
 public:
  /// `tokenizer` must outlive it.
  IncrementalDecoder(const Tokenizer& tokenizer, bool skip_special_tokens);
  ~IncrementalDecoder();
  IncrementalDecoder(IncrementalDecoder&&) noexcept;
  IncrementalDecoder& operator=(IncrementalDecoder&&) noexcept;

  /// The text that became certain with this token; may be empty. Held back are: incomplete UTF-8, at most 3
  /// bytes; with byte fallback, a run of byte tokens until it ends or has 65 of them; where a decoder
  /// replaces or strips text, what may be the beginning of it.
  std::string append(int32_t id);
  /// What is still held back; incomplete characters become U+FFFD. Call once, at the end.
  std::string finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace trireme
