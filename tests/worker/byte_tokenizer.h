#pragma once
// A tokenizer whose token ids are the bytes of the text; 256 is the special token <|end|>.

#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "engine/tokenizer/tokenizer.h"

namespace trireme::worker {

inline constexpr int32_t kEndToken = 256;
inline constexpr int32_t kByteVocabSize = 257;

/// What byte-level vocabularies write for a byte: printable ones as themselves, the others from U+0100 on.
inline std::string byte_symbol(int byte, int& next_symbol) {
  const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  const int code = printable ? byte : next_symbol++;
  if (code == '"' || code == '\\') return std::string("\\") + static_cast<char>(code);
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
}

inline std::unique_ptr<Tokenizer> byte_tokenizer() {
  std::string vocab;
  int next_symbol = 256;
  for (int byte = 0; byte < 256; ++byte) {
    vocab += (byte == 0 ? "\"" : ",\"") + byte_symbol(byte, next_symbol) + "\":" + std::to_string(byte);
  }
  const std::string json =
      R"({"version":"1.0","truncation":null,"padding":null,"added_tokens":[{"id":256,"content":"<|end|>",)"
      R"("single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],)"
      R"("normalizer":null,"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,)"
      R"("use_regex":false},"post_processor":null,"decoder":{"type":"ByteLevel","add_prefix_space":false,)"
      R"("trim_offsets":true,"use_regex":false},"model":{"type":"BPE","dropout":null,"unk_token":null,)"
      R"("continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":false,)"
      R"("vocab":{)" +
      vocab + R"(},"merges":[]}})";
  auto tokenizer = Tokenizer::parse(json, "byte_tokenizer");
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

/// A tokens-per-step script that says `text`, then <|end|> for ever.
inline int32_t nth_byte(const std::string& text, int32_t n) {
  const auto at = static_cast<size_t>(n);
  return at < text.size() ? static_cast<unsigned char>(text[at]) : kEndToken;
}

}  // namespace trireme::worker
