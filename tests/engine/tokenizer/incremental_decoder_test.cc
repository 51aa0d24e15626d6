#include "engine/tokenizer/incremental_decoder.h"

#include <random>

#include "engine/tokenizer/decoder.h"
#include "tests/engine/tokenizer/testing.h"

namespace trireme {
namespace {

constexpr const char* kFamilies[] = {"gpt2",    "llama3", "qwen",     "o200k", "llama2",
                                     "mistral", "gemma",  "unknowns", "words"};

int32_t byte_id(const Tokenizer& tokenizer, uint8_t byte) { return tokenizer.token_to_id("<0x00>") + byte; }

TEST(IncrementalDecoderTest, PiecesOfRandomIdsAddUpToDecode) {
  std::mt19937 random(5);
  for (const char* name : kFamilies) {
    const auto tokenizer = testing::family(name);
    // Some ids below and above the vocabulary; then mostly bytes, so that runs outgrow their bound.
    for (int round = 0; round < 400; ++round) {
      const int32_t highest = round % 2 == 0 ? tokenizer->vocab_size() + 20 : 262;
      std::vector<int32_t> ids(random() % 200);
      for (int32_t& id : ids) id = static_cast<int32_t>(random() % static_cast<uint32_t>(highest + 3)) - 3;
      const bool skip_special = random() % 2 == 0;
      const auto pieces = testing::stream(*tokenizer, ids, skip_special);
      ASSERT_EQ(testing::joined(pieces), tokenizer->decode(ids, skip_special)) << name;
      for (const std::string& piece : pieces) ASSERT_TRUE(tok::is_valid_utf8(piece)) << name;
    }
  }
}

TEST(IncrementalDecoderTest, TextAfterKTokensDependsOnThoseAlone) {
  const auto tokenizer = testing::family("llama2");
  const auto ids = testing::encode(*tokenizer, "Hello 你好 <s> fox");
  const auto all = testing::stream(*tokenizer, ids, true);
  for (size_t k = 0; k <= ids.size(); ++k) {
    const auto some =
        testing::stream(*tokenizer, {ids.begin(), ids.begin() + static_cast<ptrdiff_t>(k)}, true);
    for (size_t i = 0; i < k; ++i) EXPECT_EQ(some[i], all[i]);
  }
}

TEST(IncrementalDecoderTest, ByteLevelHoldsACharacterBackUntilItIsWhole) {
  const auto tokenizer = testing::family("gpt2");
  std::vector<int32_t> ids;
  for (const char byte : std::string("é😀")) {
    std::string token;
    tok::append_utf8(tok::byte_to_character(static_cast<uint8_t>(byte)), token);
    ids.push_back(tokenizer->token_to_id(token));
  }
  EXPECT_EQ(testing::stream(*tokenizer, ids, false),
            (std::vector<std::string>{"", "é", "", "", "", "😀", ""}));
  ids.pop_back();
  EXPECT_EQ(testing::stream(*tokenizer, ids, false),
            (std::vector<std::string>{"", "é", "", "", "", std::string(tok::kReplacementCharacter)}));
}

TEST(IncrementalDecoderTest, ByteRunEndsWithTheNextOtherToken) {
  const auto tokenizer = testing::family("gemma");
  const int32_t a = tokenizer->token_to_id("a");
  const std::vector<int32_t> whole = {byte_id(*tokenizer, 0xC3), byte_id(*tokenizer, 0xA9), a};
  EXPECT_EQ(testing::stream(*tokenizer, whole, false), (std::vector<std::string>{"", "", "éa", ""}));
  const std::vector<int32_t> broken = {byte_id(*tokenizer, 'x'), byte_id(*tokenizer, 0xA9), a};
  EXPECT_EQ(testing::stream(*tokenizer, broken, false), (std::vector<std::string>{"", "",
                                                                                  "\xEF\xBF\xBD\xEF\xBF\xBD"
                                                                                  "a",
                                                                                  ""}));
}

TEST(IncrementalDecoderTest, LongByteRunIsNotHeldBackForever) {
  const auto tokenizer = testing::family("gemma");
  std::vector<int32_t> ids;
  std::string wanted;
  for (int i = 0; i < 100; ++i) {
    for (const char byte : std::string("မ")) ids.push_back(byte_id(*tokenizer, static_cast<uint8_t>(byte)));
    wanted += "မ";
  }
  const auto pieces = testing::stream(*tokenizer, ids, false);
  EXPECT_EQ(testing::joined(pieces), wanted);
  size_t given = 0;
  for (size_t i = 0; i < pieces.size(); ++i) {
    given += pieces[i].size();
    if (i >= tok::kMaxHeldByteTokens) {
      EXPECT_GE(given + 3, std::min(i + 1, wanted.size())) << "after " << i + 1 << " tokens";
    }
  }
}

TEST(IncrementalDecoderTest, OnlyTheLeadingSpaceIsStripped) {
  const auto tokenizer = testing::family("llama2");
  const auto ids = testing::encode(*tokenizer, " dog dog");
  const auto pieces = testing::stream(*tokenizer, ids, true);
  EXPECT_EQ(testing::joined(pieces), " dog dog");
  EXPECT_EQ(tokenizer->decode({tokenizer->token_to_id("▁")}, true), "");
}

TEST(IncrementalDecoderTest, SkipsSpecialTokensWhenAsked) {
  const auto tokenizer = testing::family("llama3");
  const auto ids = testing::encode(*tokenizer, "hi<|eot_id|>", true);
  EXPECT_EQ(testing::joined(testing::stream(*tokenizer, ids, true)), "hi");
  EXPECT_EQ(testing::joined(testing::stream(*tokenizer, ids, false)), "<|begin_of_text|>hi<|eot_id|>");
}

}  // namespace
}  // namespace trireme
