#pragma once
// Text to token ids and back, as the Hugging Face file tokenizer.json says.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace trireme {

/// Immutable after loading, so any number of threads may use it at once.
class Tokenizer {
 public:
  /// Reads model_dir/tokenizer.json and, if there is one, tokenizer_config.json: from that the tokens of
  /// added_tokens_decoder, the named special tokens, and add_bos_token / add_eos_token where tokenizer.json
  /// has no post-processor. "truncation" and "padding" are left alone. NOT_FOUND / INVALID_ARGUMENT naming
  /// the file, the part, got and wanted; a kind of normalizer, pre-tokenizer, model, post-processor or
  /// decoder that is not known is named.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> load(const std::string& model_dir);
  /// The same from the bytes of a tokenizer.json.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> parse(std::string_view json, const std::string& where);
  ~Tokenizer();

  /// `text` is UTF-8 (invalid bytes are taken as U+FFFD). Special tokens written out in the text become their
  /// ids, as in the `tokenizers` library. O(n log n). RESOURCE_EXHAUSTED when a pattern exceeds its match
  /// limit.
  absl::StatusOr<std::vector<int32_t>> encode(std::string_view text, bool add_special_tokens) const;
  /// Ids outside the vocabulary give nothing. Invalid UTF-8 becomes U+FFFD. Equals the `tokenizers` library's
  /// decode(), but for invalid runs of more than 64 byte tokens (see kMaxHeldByteTokens), and for special
  /// tokens that a normalizer changes, which are skipped like all others.
  std::string decode(const std::vector<int32_t>& ids, bool skip_special_tokens) const;

  int32_t vocab_size() const;  // highest id + 1
  bool is_special(int32_t id) const;
  /// Id of an exact token text, or -1.
  int32_t token_to_id(std::string_view token) const;
  /// Raw token as in the vocabulary; empty for unknown ids.
  std::string id_to_token(int32_t id) const;
  /// FNV-1a of the file's bytes, hex.
  const std::string& hash() const;

 private:
  friend class IncrementalDecoder;
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace trireme
