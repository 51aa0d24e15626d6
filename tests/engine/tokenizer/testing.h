#pragma once
// The tiny tokenizers under data/ and what the `tokenizers` library makes of them (see make_references.py).

#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "engine/tokenizer/incremental_decoder.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/unicode.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace trireme::testing {

inline std::string read_data(const std::string& name) {
  std::ifstream file(std::string(TRIREME_TEST_DATA) + "/data/" + name, std::ios::binary);
  EXPECT_TRUE(file.good()) << name;
  std::ostringstream bytes;
  bytes << file.rdbuf();
  return std::move(bytes).str();
}

inline std::unique_ptr<Tokenizer> parse_tokenizer(const std::string& json) {
  auto tokenizer = Tokenizer::parse(json, "test");
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

inline std::unique_ptr<Tokenizer> family(const std::string& name) {
  return parse_tokenizer(read_data(name + ".json"));
}

/// Reference files write an id as the character id + 0x20.
inline std::vector<int32_t> ids_of(const std::string& text) {
  std::vector<int32_t> ids;
  for (size_t at = 0; at < text.size();) {
    const tok::CodePoint c = tok::decode_utf8(text, at);
    ids.push_back(static_cast<int32_t>(c.value) - 0x20);
    at += c.length;
  }
  return ids;
}

inline std::vector<int32_t> encode(const Tokenizer& tokenizer, std::string_view text,
                                   bool add_special = false) {
  auto ids = tokenizer.encode(text, add_special);
  EXPECT_TRUE(ids.ok()) << ids.status();
  return ids.ok() ? *std::move(ids) : std::vector<int32_t>();
}

/// The pieces of a stream, the last one from finish().
inline std::vector<std::string> stream(const Tokenizer& tokenizer, const std::vector<int32_t>& ids,
                                       bool skip_special) {
  std::vector<std::string> pieces;
  IncrementalDecoder decoder(tokenizer, skip_special);
  for (const int32_t id : ids) pieces.push_back(decoder.append(id));
  pieces.push_back(decoder.finish());
  return pieces;
}

inline std::string joined(const std::vector<std::string>& pieces) {
  std::string text;
  for (const std::string& piece : pieces) text += piece;
  return text;
}

}  // namespace trireme::testing
