// Every family of tokenizers against what the `tokenizers` library gave for the same file.

#include "tests/engine/tokenizer/testing.h"

namespace trireme {
namespace {

using testing::ids_of;

class TokenizerReferenceTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    tokenizer_ = testing::family(GetParam());
    ASSERT_NE(tokenizer_, nullptr);
    references_ = nlohmann::json::parse(testing::read_data(std::string(GetParam()) + ".references.json"));
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  nlohmann::json references_;
};

TEST_P(TokenizerReferenceTest, EncodesAwkwardStringsAsTheLibraryDoes) {
  const auto strings = nlohmann::json::parse(testing::read_data("strings.json"));
  ASSERT_GT(strings.size(), 2000);
  ASSERT_EQ(strings.size(), references_["encode"].size());
  int wrong = 0;
  for (size_t i = 0; i < strings.size() && wrong < 5; ++i) {
    const auto got = testing::encode(*tokenizer_, strings[i].get<std::string>());
    const auto wanted = ids_of(references_["encode"][i]);
    EXPECT_EQ(got, wanted) << "string " << i << ": " << strings[i];
    wrong += got != wanted;
  }
}

TEST_P(TokenizerReferenceTest, SurroundsTextWithSpecialTokens) {
  EXPECT_EQ(testing::encode(*tokenizer_, "x", true), ids_of(references_["x_with_special_tokens"]));
}

TEST_P(TokenizerReferenceTest, DecodesAnyIdsAsTheLibraryDoes) {
  ASSERT_GE(references_["decode"].size(), 300);
  for (const auto& reference : references_["decode"]) {
    const auto ids = ids_of(reference[0]);
    EXPECT_EQ(tokenizer_->decode(ids, false), reference[1].get<std::string>())
        << ::testing::PrintToString(ids);
    EXPECT_EQ(tokenizer_->decode(ids, true), reference[2].get<std::string>())
        << ::testing::PrintToString(ids);
  }
}

TEST_P(TokenizerReferenceTest, StreamsWhatDecodeGives) {
  for (const auto& reference : references_["decode"]) {
    const auto ids = ids_of(reference[0]);
    for (const bool skip_special : {false, true}) {
      const auto pieces = testing::stream(*tokenizer_, ids, skip_special);
      EXPECT_EQ(testing::joined(pieces), tokenizer_->decode(ids, skip_special))
          << ::testing::PrintToString(ids);
      for (const std::string& piece : pieces) EXPECT_TRUE(tok::is_valid_utf8(piece)) << piece;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, TokenizerReferenceTest,
                         ::testing::Values("gpt2", "llama3", "qwen", "o200k", "llama2", "mistral", "gemma",
                                           "unknowns", "words"),
                         [](const auto& param_info) { return std::string(param_info.param); });

}  // namespace
}  // namespace trireme
