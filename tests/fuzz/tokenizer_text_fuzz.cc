// Any bytes as text, and as ids, for each family of tokenizers. The first byte chooses.

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "engine/tokenizer/incremental_decoder.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/unicode.h"
#include "kernels/check.h"

namespace {

struct Family {
  const char* name;
  bool lossless;  // text that begins with a letter comes back as it was
};
constexpr Family kFamilies[] = {{"gpt2", true},     {"llama3", true},    {"o200k", false},
                                {"qwen", false},    {"llama2", false},   {"gemma", false},
                                {"mistral", false}, {"unknowns", false}, {"words", false}};

std::unique_ptr<trireme::Tokenizer> load(const char* name) {
  std::ifstream file(std::string(TRIREME_TOKENIZER_DATA) + "/" + name + ".json");
  std::ostringstream json;
  json << file.rdbuf();
  auto tokenizer = trireme::Tokenizer::parse(json.str(), name);
  TRIREME_CHECK(tokenizer.ok());
  return *std::move(tokenizer);
}

void check_decode(const trireme::Tokenizer& tokenizer, const std::vector<int32_t>& ids, bool skip_special) {
  const std::string whole = tokenizer.decode(ids, skip_special);
  TRIREME_CHECK(trireme::tok::is_valid_utf8(whole));
  trireme::IncrementalDecoder decoder(tokenizer, skip_special);
  std::string pieces;
  for (const int32_t id : ids) {
    const std::string piece = decoder.append(id);
    TRIREME_CHECK(trireme::tok::is_valid_utf8(piece));
    pieces += piece;
  }
  pieces += decoder.finish();
  CHECK_EQ(pieces, whole);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::vector<std::unique_ptr<trireme::Tokenizer>> tokenizers = [] {
    std::vector<std::unique_ptr<trireme::Tokenizer>> loaded;
    for (const Family& family : kFamilies) loaded.push_back(load(family.name));
    return loaded;
  }();
  if (size == 0) return 0;
  const size_t chosen = data[0] % tokenizers.size();
  const trireme::Tokenizer& tokenizer = *tokenizers[chosen];
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto ids = tokenizer.encode(text, false);
  TRIREME_CHECK(ids.ok());
  for (const int32_t id : *ids) TRIREME_CHECK(id >= 0 && id < tokenizer.vocab_size());
  if (kFamilies[chosen].lossless) CHECK_EQ(tokenizer.decode(*ids, false), trireme::tok::valid_utf8(text));
  check_decode(tokenizer, *ids, true);

  std::vector<int32_t> any;  // two bytes an id, so that some are beyond the vocabulary
  for (size_t i = 1; i + 1 < size; i += 2) any.push_back((data[i] << 8 | data[i + 1]) % 1024 - 8);
  check_decode(tokenizer, any, data[0] >= 128);
  return 0;
}
