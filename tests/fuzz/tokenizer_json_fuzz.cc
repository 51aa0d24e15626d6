// Any bytes as tokenizer.json; what loads must encode and decode.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/tokenizer/incremental_decoder.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/unicode.h"
#include "kernels/check.h"

namespace {

void check_round_trip(const trireme::Tokenizer& tokenizer, std::string_view text) {
  const auto ids = tokenizer.encode(text, true);
  if (!ids.ok()) {
    TRIREME_CHECK(absl::IsResourceExhausted(ids.status()) || absl::IsInvalidArgument(ids.status()));
    return;
  }
  for (const int32_t id : *ids) {
    CHECK_GE(id, 0);
    CHECK_LT(id, tokenizer.vocab_size());
  }
  const std::string whole = tokenizer.decode(*ids, false);
  TRIREME_CHECK(trireme::tok::is_valid_utf8(whole));
  trireme::IncrementalDecoder decoder(tokenizer, false);
  std::string pieces;
  for (const int32_t id : *ids) pieces += decoder.append(id);
  pieces += decoder.finish();
  CHECK_EQ(pieces, whole);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto tokenizer = trireme::Tokenizer::parse(bytes, "f");
  if (!tokenizer.ok()) {
    TRIREME_CHECK(absl::IsInvalidArgument(tokenizer.status()) ||
                  absl::IsResourceExhausted(tokenizer.status()));
    TRIREME_CHECK(!tokenizer.status().message().empty());
    return 0;
  }
  check_round_trip(**tokenizer, "ab  a1,\n<s>\xC3\xA9 \xFF\xF0\x9F\x98\x80 abab<x> ");
  check_round_trip(**tokenizer, bytes.substr(0, 48));
  return 0;
}
