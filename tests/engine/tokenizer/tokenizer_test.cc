#include "engine/tokenizer/tokenizer.h"

#include <filesystem>
#include <random>
#include <thread>

#include "gmock/gmock.h"
#include "tests/engine/tokenizer/testing.h"

namespace trireme {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Ids = std::vector<int32_t>;

class ModelDir {
 public:
  ModelDir()
      : path_(std::filesystem::path(::testing::TempDir()) / ("tokenizer_test_" + std::to_string(getpid()))) {
    std::filesystem::create_directories(path_);
  }
  ~ModelDir() { std::filesystem::remove_all(path_); }
  void write(const std::string& name, const std::string& text) { std::ofstream(path_ / name) << text; }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

// Letters a to e, "<s>" = 5, "</s>" = 6, "<x>" = 7 and no added tokens.
json letters() {
  return json::parse(R"({"model": {"type": "BPE", "merges": [], "vocab":
      {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4, "<s>": 5, "</s>": 6, "<x>": 7, " ": 8}}})");
}

absl::StatusOr<std::unique_ptr<Tokenizer>> load(const json& tokenizer, const std::string& config) {
  ModelDir dir;
  dir.write("tokenizer.json", tokenizer.dump());
  dir.write("tokenizer_config.json", config);
  return Tokenizer::load(dir.path());
}

TEST(TokenizerTest, InvalidUtf8IsTakenAsReplacementCharacters) {
  for (const char* name : {"gpt2", "llama2", "qwen", "unknowns"}) {
    const auto tokenizer = testing::family(name);
    EXPECT_EQ(testing::encode(*tokenizer,
                              "a\xFF"
                              "b\xE4\xBD"),
              testing::encode(*tokenizer, "a\uFFFDb\uFFFD"))
        << name;
  }
}

TEST(TokenizerTest, RandomBytesEncodeAndDecode) {
  std::mt19937 random(3);
  for (const char* name : {"gpt2", "llama3", "llama2", "mistral", "words"}) {
    const auto tokenizer = testing::family(name);
    for (int round = 0; round < 200; ++round) {
      std::string bytes(1 + random() % 60, '\0');
      for (char& byte : bytes) byte = static_cast<char>(random());
      bytes[0] = 'x';  // some families do not give a leading space back
      const auto ids = testing::encode(*tokenizer, bytes);
      for (const int32_t id : ids) {
        ASSERT_GE(id, 0);
        ASSERT_LT(id, tokenizer->vocab_size());
      }
      if (std::string(name) != "words") {
        EXPECT_EQ(tokenizer->decode(ids, false), tok::valid_utf8(bytes)) << name;
      }
    }
  }
}

TEST(TokenizerTest, MegabytesOfOneThingEncode) {
  const size_t size = 1 << 20;
  const std::string texts[] = {std::string(size, 'a'), std::string(1, 'x').append(size, ' ').append("x"),
                               std::string(size, '\xFF')};
  for (const char* name : {"llama3", "mistral"}) {
    const auto tokenizer = testing::family(name);
    for (const std::string& text : texts) {
      const auto ids = testing::encode(*tokenizer, text);
      EXPECT_TRUE(tokenizer->decode(ids, false) == tok::valid_utf8(text))
          << name << " " << text.substr(0, 10);
    }
  }
}

TEST(TokenizerTest, ThreadsShareOneTokenizer) {
  const auto tokenizer = testing::family("o200k");
  const std::string text = "Hello 你好 <|message|> x 123";
  const Ids wanted = testing::encode(*tokenizer, text);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) {
        EXPECT_EQ(testing::encode(*tokenizer, text), wanted);
        EXPECT_EQ(tokenizer->decode(wanted, false), tokenizer->decode(wanted, false));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(TokenizerTest, KnowsItsTokens) {
  const auto tokenizer = testing::family("llama3");
  const int32_t eot = tokenizer->token_to_id("<|eot_id|>");
  ASSERT_GE(eot, 0);
  EXPECT_TRUE(tokenizer->is_special(eot));
  EXPECT_FALSE(tokenizer->is_special(tokenizer->token_to_id("a")));
  EXPECT_FALSE(tokenizer->is_special(-1));
  EXPECT_EQ(tokenizer->id_to_token(eot), "<|eot_id|>");
  EXPECT_EQ(tokenizer->id_to_token(tokenizer->vocab_size()), "");
  EXPECT_EQ(tokenizer->id_to_token(-5), "");
  EXPECT_EQ(tokenizer->token_to_id("no such token"), -1);
  EXPECT_EQ(tokenizer->vocab_size(), eot + 1);
  EXPECT_EQ(tokenizer->decode({-1, tokenizer->vocab_size(), 1 << 30}, false), "");
}

TEST(TokenizerTest, HashIsThatOfTheBytes) {
  const auto one = testing::family("gpt2");
  const auto same = testing::family("gpt2");
  const auto other = testing::parse_tokenizer(testing::read_data("gpt2.json") + " ");
  EXPECT_EQ(one->hash().size(), 16);
  EXPECT_EQ(one->hash(), same->hash());
  EXPECT_NE(one->hash(), other->hash());
}

TEST(TokenizerTest, BothFormsOfMergesGiveTheSame) {
  json file = json::parse(testing::read_data("gpt2.json"));
  json& merges = file["model"]["merges"];
  ASSERT_TRUE(merges[0].is_array());
  for (json& merge : merges) merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
  merges.insert(merges.begin(), "#version: 0.2");
  const auto legacy = testing::parse_tokenizer(file.dump());
  const auto pairs = testing::family("gpt2");
  const std::string text = "the quick brown fox wasn't there";
  EXPECT_EQ(testing::encode(*legacy, text), testing::encode(*pairs, text));
}

TEST(TokenizerTest, AffixesBelongToTheirPlaceInTheWord) {
  const auto tokenizer = testing::parse_tokenizer(R"({"pre_tokenizer": {"type": "WhitespaceSplit"}, "model":
      {"type": "BPE", "continuing_subword_prefix": "##", "end_of_word_suffix": "</w>", "unk_token": "?",
       "vocab": {"?": 0, "a": 1, "##b": 2, "##c</w>": 3, "ab": 4, "abc</w>": 5, "a</w>": 6},
       "merges": [["a", "##b"], ["ab", "##c</w>"]]}})");
  EXPECT_THAT(testing::encode(*tokenizer, "abc a ab"), ElementsAre(5, 6, 1, 0));
}

TEST(TokenizerConfigTest, NamedTokensOfTheVocabularyAreSpecial) {
  const auto plain = load(letters(), "{}");
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_FALSE((*plain)->is_special(5));
  const auto tokenizer = load(letters(), R"({"bos_token": "<s>", "eos_token": {"content": "</s>"},
      "additional_special_tokens": ["<x>", "<none>"], "pad_token": null})");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_THAT(testing::encode(**tokenizer, "a<s>b</s><x>"), ElementsAre(0, 5, 1, 6, 7));
  EXPECT_EQ((*tokenizer)->decode({5, 0, 6}, true), "a");
  EXPECT_EQ((*tokenizer)->token_to_id("<none>"), -1);
}

TEST(TokenizerConfigTest, AddedTokensDecoderAddsTokens) {
  const auto tokenizer = load(letters(), R"({"added_tokens_decoder": {"9": {"content": "<|im_end|>",
      "special": true}, "7": {"content": "<x>", "rstrip": true, "normalized": false}}})");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_THAT(testing::encode(**tokenizer, "a<x> b<|im_end|>"), ElementsAre(0, 7, 1, 9));
  EXPECT_TRUE((*tokenizer)->is_special(9));
  EXPECT_EQ((*tokenizer)->vocab_size(), 10);
}

TEST(TokenizerConfigTest, FlagsSurroundTheTextWhereThereIsNoPostProcessor) {
  const std::string config =
      R"({"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": true, "add_eos_token": true})";
  const auto flags = load(letters(), config);
  ASSERT_TRUE(flags.ok()) << flags.status();
  EXPECT_THAT(testing::encode(**flags, "ab", true), ElementsAre(5, 0, 1, 6));
  EXPECT_THAT(testing::encode(**flags, "ab", false), ElementsAre(0, 1));
  json file = letters();
  file["post_processor"] = json::parse(R"({"type": "ByteLevel"})");
  const auto ruled = load(file, config);
  ASSERT_TRUE(ruled.ok()) << ruled.status();
  EXPECT_THAT(testing::encode(**ruled, "ab", true), ElementsAre(0, 1));
}

TEST(TokenizerConfigTest, MismatchesAreErrors) {
  const auto message = [](const std::string& config) {
    const auto tokenizer = load(letters(), config);
    return tokenizer.ok() ? "no error" : std::string(tokenizer.status().message());
  };
  EXPECT_THAT(message("{"), HasSubstr("tokenizer_config.json"));
  EXPECT_THAT(message(R"({"bos_token": 3})"),
              HasSubstr("tokenizer_config.json.bos_token: got 3, wanted a string"));
  EXPECT_THAT(message(R"({"added_tokens_decoder": {"x": {"content": "y"}}})"), HasSubstr("the key is no id"));
  EXPECT_THAT(message(R"({"added_tokens_decoder": {"1": {"content": "y"}}})"),
              HasSubstr("id 1 of \"y\" is already that of \"b\""));
  EXPECT_THAT(message(R"({"add_bos_token": true, "bos_token": "<none>"})"),
              HasSubstr("no token is \"<none>\""));
}

}  // namespace
}  // namespace trireme
