// Files that are wrong in one place each: a status that names the place, never a crash.

#include <filesystem>

#include "gmock/gmock.h"
#include "tests/engine/tokenizer/testing.h"

namespace trireme {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

json smallest() {
  return json::parse(R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}})");
}

std::string error_of(const std::string& text) {
  const auto tokenizer = Tokenizer::parse(text, "x.json");
  if (tokenizer.ok()) return "no error";
  EXPECT_TRUE(absl::IsInvalidArgument(tokenizer.status())) << tokenizer.status();
  return std::string(tokenizer.status().message());
}

// With one value of the smallest file replaced.
std::string error_with(const char* pointer, const std::string& value) {
  json file = smallest();
  file[json::json_pointer(pointer)] = json::parse(value);
  return error_of(file.dump());
}

TEST(TokenizerBadInputTest, SmallestFileIsGood) {
  const auto tokenizer = testing::parse_tokenizer(smallest().dump());
  EXPECT_EQ(testing::encode(*tokenizer, "abab"), (std::vector<int32_t>{2, 2}));
}

TEST(TokenizerBadInputTest, NotJson) {
  EXPECT_THAT(error_of(""), HasSubstr("x.json"));
  EXPECT_THAT(error_of("{"), HasSubstr("x.json"));
  EXPECT_THAT(error_of("[]"), HasSubstr("object"));
  EXPECT_THAT(error_of("{\"model\": \"\xFF\"}"), HasSubstr("x.json"));
  EXPECT_THAT(error_of("{}"), HasSubstr("model"));
  EXPECT_THAT(error_of(std::string(100000, '[')), HasSubstr("64"));
  std::string deep = "{\"normalizer\": ";
  for (int i = 0; i < 100; ++i) deep += R"({"type": "Sequence", "normalizers": [)";
  EXPECT_THAT(error_of(deep), HasSubstr("64"));
}

TEST(TokenizerBadInputTest, UnknownKindsAreNamed) {
  EXPECT_THAT(error_with("/model/type", R"("Unigram")"), HasSubstr("unknown kind of model \"Unigram\""));
  EXPECT_THAT(error_with("/normalizer", R"({"type": "Precompiled"})"), HasSubstr("\"Precompiled\""));
  EXPECT_THAT(error_with("/pre_tokenizer", R"({"type": "UnicodeScripts"})"), HasSubstr("\"UnicodeScripts\""));
  EXPECT_THAT(error_with("/post_processor", R"({"type": "Bert"})"), HasSubstr("\"Bert\""));
  EXPECT_THAT(error_with("/decoder", R"({"type": "CTC"})"), HasSubstr("\"CTC\""));
  EXPECT_THAT(
      error_with("/decoder", R"({"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "X"}]})"),
      HasSubstr("x.json.decoder.decoders[1]: unknown kind of decoder \"X\", wanted one of"));
}

TEST(TokenizerBadInputTest, WrongTypesAreNamed) {
  EXPECT_THAT(error_with("/model", "[]"), HasSubstr("x.json.model"));
  EXPECT_THAT(error_with("/model/vocab", "[]"), HasSubstr("x.json.model.vocab: got [], wanted an object"));
  EXPECT_THAT(error_with("/model/vocab", "null"), HasSubstr("got nothing, wanted an object"));
  EXPECT_THAT(error_with("/model/merges", "{}"), HasSubstr("x.json.model.merges: got {}, wanted an array"));
  EXPECT_THAT(error_with("/model/merges", "[1]"), HasSubstr("x.json.model.merges[0]"));
  EXPECT_THAT(error_with("/model/merges", R"([["a"]])"), HasSubstr("x.json.model.merges[0]"));
  EXPECT_THAT(error_with("/model/merges", R"(["ab"])"), HasSubstr("two tokens with one space"));
  EXPECT_THAT(error_with("/model/merges", R"(["a b c"])"), HasSubstr("two tokens with one space"));
  EXPECT_THAT(error_with("/model/fuse_unk", "1"),
              HasSubstr("x.json.model.fuse_unk: got 1, wanted true or false"));
  EXPECT_THAT(error_with("/model/dropout", "0.5"), HasSubstr("dropout"));
  EXPECT_THAT(error_with("/normalizer", "3"), HasSubstr("x.json.normalizer"));
  EXPECT_THAT(error_with("/normalizer", "{}"),
              HasSubstr("x.json.normalizer.type: got nothing, wanted a string"));
  EXPECT_THAT(error_with("/added_tokens", "{}"), HasSubstr("x.json.added_tokens"));
}

TEST(TokenizerBadInputTest, IdsOutOfRange) {
  for (const char* id : {"-1", "4194304", "1e3", "99999999999999999999", "\"1\"", "null", "1.5"}) {
    EXPECT_THAT(error_with("/model/vocab/b", id), HasSubstr("wanted an integer of 0 to 4194303")) << id;
    const std::string token = std::string(R"([{"content": "x", "id": )") + id + "}]";
    EXPECT_THAT(error_with("/added_tokens", token), HasSubstr("x.json.added_tokens[0].id")) << id;
  }
}

TEST(TokenizerBadInputTest, DuplicateIdsAndTokens) {
  EXPECT_THAT(error_with("/model/vocab/b", "0"), HasSubstr("id 0 is also that of \"a\""));
  EXPECT_THAT(error_with("/added_tokens", R"([{"id": 1, "content": "x"}])"),
              HasSubstr("id 1 of \"x\" is already that of \"b\""));
  EXPECT_THAT(error_with("/added_tokens", R"([{"id": 5, "content": "b"}])"),
              HasSubstr("\"b\" is given id 5, but it already has id 1"));
  EXPECT_THAT(error_with("/added_tokens", R"([{"id": 5, "content": "x"}, {"id": 5, "content": "y"}])"),
              HasSubstr("x.json.added_tokens[1]: id 5 of \"y\" is already that of \"x\""));
}

TEST(TokenizerBadInputTest, MergesOfUnknownTokens) {
  EXPECT_THAT(error_with("/model/merges", R"(["a z"])"), HasSubstr("x.json.model.merges[0]: token \"z\""));
  EXPECT_THAT(error_with("/model/merges", R"(["a b", ["b", "a"]])"), HasSubstr("token \"ba\" of a merge"));
}

TEST(TokenizerBadInputTest, PartsWithoutTheirMembers) {
  EXPECT_THAT(error_with("/pre_tokenizer", R"({"type": "Split", "pattern": {"Regex": "("}})"),
              HasSubstr("Regex"));
  EXPECT_THAT(error_with("/pre_tokenizer", R"({"type": "Split", "pattern": {}})"), HasSubstr("String"));
  EXPECT_THAT(error_with("/pre_tokenizer", R"({"type": "Split", "pattern": {"String": ""}})"),
              HasSubstr("empty"));
  EXPECT_THAT(
      error_with("/pre_tokenizer", R"({"type": "Split", "pattern": {"String": "a"}, "behavior": "Eaten"})"),
      HasSubstr("\"Eaten\""));
  EXPECT_THAT(error_with("/pre_tokenizer", R"({"type": "Metaspace", "replacement": "ab"})"),
              HasSubstr("one single character"));
  EXPECT_THAT(error_with("/normalizer", R"({"type": "Replace", "pattern": {"String": "a"}})"),
              HasSubstr("x.json.normalizer.content"));
  EXPECT_THAT(error_with("/decoder", R"({"type": "Strip", "content": " ", "start": -1, "stop": 0})"),
              HasSubstr("x.json.decoder.start"));
  EXPECT_THAT(error_with("/post_processor", R"({"type": "TemplateProcessing", "single": [{"SpecialToken":
              {"id": "<s>"}}], "special_tokens": {}})"),
              HasSubstr("\"<s>\" is not in special_tokens"));
  EXPECT_THAT(error_with("/post_processor", R"({"type": "TemplateProcessing", "single": [{"SpecialToken":
              {"id": "<s>"}}], "special_tokens": {"<s>": {"ids": [77]}}})"),
              HasSubstr("adds id 77, which no token has"));
}

TEST(TokenizerBadInputTest, UnknownTokenThatNoVocabularyHasIsAnErrorWhenNeeded) {
  json file = smallest();
  file["model"]["unk_token"] = "<unk>";
  const auto tokenizer = testing::parse_tokenizer(file.dump());
  EXPECT_EQ(testing::encode(*tokenizer, "ab"), std::vector<int32_t>{2});
  const auto ids = tokenizer->encode("x", false);
  EXPECT_TRUE(absl::IsInvalidArgument(ids.status())) << ids.status();
  EXPECT_THAT(std::string(ids.status().message()), HasSubstr("<unk>"));
}

TEST(TokenizerBadInputTest, MissingFileIsNotFound) {
  const auto tokenizer = Tokenizer::load("/nonexistent");
  EXPECT_TRUE(absl::IsNotFound(tokenizer.status())) << tokenizer.status();
  EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr("/nonexistent/tokenizer.json"));
}

TEST(TokenizerBadInputTest, EveryTruncationOfAFileIsAnError) {
  const std::string file = testing::read_data("o200k.json");
  const std::string text = file.substr(0, file.rfind('}'));
  for (size_t length = 0; length <= text.size(); length += 37) {
    EXPECT_NE(error_of(text.substr(0, length)), "no error") << length;
  }
}

}  // namespace
}  // namespace trireme
