#include "engine/tokenizer/regex.h"

#include "engine/tokenizer/regex_syntax.h"
#include "engine/tokenizer/unicode.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace trireme::tok {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// The matches of `pattern` in `text`.
std::vector<std::string> matches(std::string_view pattern, const std::string& text) {
  const auto compiled = Pattern::regex(pattern);
  EXPECT_TRUE(compiled.ok()) << compiled.status();
  if (!compiled.ok()) return {};
  std::vector<Span> spans;
  Pattern::Search search(*compiled);
  const absl::Status status = search.find_all(text, WorkLimit::for_text(text.size()), spans);
  EXPECT_TRUE(status.ok()) << status;
  std::vector<std::string> found;
  for (const Span& span : spans) {
    if (span.is_match) found.push_back(text.substr(span.begin, span.end - span.begin));
  }
  return found;
}

std::string error_of(std::string_view pattern) {
  const auto compiled = Pattern::regex(pattern);
  return compiled.ok() ? "no error" : std::string(compiled.status().message());
}

TEST(RegexTest, SpansCoverTheText) {
  const auto pattern = Pattern::regex("b+");
  ASSERT_TRUE(pattern.ok());
  std::vector<Span> spans;
  Pattern::Search search(*pattern);
  ASSERT_TRUE(search.find_all("abbcb", WorkLimit(5.0), spans).ok());
  ASSERT_EQ(spans.size(), 4);
  EXPECT_EQ(spans[0].end, spans[1].begin);
  EXPECT_EQ(spans[1].end, 3);
  EXPECT_TRUE(spans[3].is_match);
  EXPECT_EQ(spans[3].end, 5);
}

TEST(RegexTest, EmptyMatchesArePassedOverBehindAMatch) {
  EXPECT_THAT(matches("x*", "axb"), ElementsAre("", "x", ""));
  EXPECT_THAT(matches("", "é1"), ElementsAre("", "", ""));
  EXPECT_THAT(matches("(?=[A-Z])", "aBcD"), ElementsAre("", ""));
}

TEST(RegexTest, SearchCrossesItsWindows) {
  const std::string far(1000, 'a');
  EXPECT_THAT(matches("b", far + "b" + far + "b"), ElementsAre("b", "b"));
  std::string wide;
  for (int i = 0; i < 500; ++i) wide += "é";
  EXPECT_THAT(matches("x", wide + "x" + wide + "x" + wide), ElementsAre("x", "x"));
}

TEST(RegexTest, ClassesGoByUnicode) {
  EXPECT_THAT(matches("\\w+", "añ1_ǆ हिन्दी x²"), ElementsAre("añ1_ǆ", "हिन्दी", "x²"));
  EXPECT_THAT(matches("\\s+", "a\u00a0\u2003b\u180ec"), ElementsAre("\u00a0\u2003"));
  EXPECT_THAT(matches("\\d+", "1٣ Ⅷ"), ElementsAre("1٣"));
  EXPECT_THAT(matches("[[:punct:]]+", "a+▁.b"), ElementsAre("+▁."));
  EXPECT_THAT(matches("\\p{Han}+", "你好。世"), ElementsAre("你好", "世"));  // U+3002 is Common
  EXPECT_THAT(matches("\\h+", "fade to 0"), ElementsAre("fade", "0"));
  EXPECT_THAT(matches("(?i:'S|k)", "'s 'ſ K"), ElementsAre("'s", "'ſ", "K"));
}

TEST(RegexTest, OnigurumaConstructsAreTranslated) {
  EXPECT_THAT(matches("[^(\\s|[.,!?…])]+", "ab(c.d e"), ElementsAre("ab", "c", "d", "e"));
  EXPECT_THAT(matches("[a[-]z]+", "a-zb"), ElementsAre("a-z"));
  EXPECT_THAT(matches("\\u0061\\x{62}", "xab"), ElementsAre("ab"));
  EXPECT_THAT(matches("\\d{1,2}+", "12345 6"), ElementsAre("12345", "6"));
  EXPECT_THAT(matches("(?m:a.b)|c.d", "a\nb c\nd"), ElementsAre("a\nb"));
  EXPECT_THAT(matches("\\s+$", "a  \nb "), ElementsAre("  ", " "));  // $ is always that of lines
  EXPECT_THAT(matches("\\bé", "é aé"), ElementsAre("é"));
  EXPECT_THAT(matches("[]x]+", "a]x"), ElementsAre("]x"));
}

TEST(RegexTest, RefusesWhatItCannotTranslate) {
  EXPECT_THAT(error_of("[a-z&&[^b]]"), HasSubstr("intersection && inside a set at byte 4"));
  EXPECT_THAT(error_of("[a[^b]]"), HasSubstr("a negated set inside a set"));
  EXPECT_THAT(error_of("[^\\W_]"), HasSubstr("\\W inside a set"));
  EXPECT_THAT(error_of("[[:nonsense:]]"), HasSubstr("nonsense"));
}

TEST(RegexTest, SaysWhatIsWrongWithAPattern) {
  EXPECT_THAT(error_of("(a"), HasSubstr("parenthesis"));
  EXPECT_THAT(error_of("[a"), HasSubstr("set without its ]"));
  EXPECT_THAT(error_of("\\p{Nonsense}"), HasSubstr("unknown property"));
  EXPECT_THAT(error_of("a\\"), HasSubstr("backslash"));
  EXPECT_THAT(error_of("*"), HasSubstr("quantifier"));
  EXPECT_THAT(error_of(std::string(70000, 'a')), HasSubstr("70000 bytes, wanted at most 65536"));
  EXPECT_THAT(error_of(std::string(300, '(') + std::string(300, ')')), HasSubstr("nested"));
}

TEST(RegexTest, CatastrophicPatternIsResourceExhausted) {
  const auto pattern = Pattern::regex("(a+)+$");
  ASSERT_TRUE(pattern.ok());
  std::vector<Span> spans;
  Pattern::Search search(*pattern);
  const absl::Status status = search.find_all(std::string(200, 'a') + "!", WorkLimit(5.0), spans);
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("(a+)+$"));
}

TEST(RegexTest, CostOfTheWholeTextIsBounded) {
  // Quadratic, though no match by itself takes long; without the bound this would run for many minutes.
  const auto pattern = Pattern::regex("(?:\\s)+?\\d");
  ASSERT_TRUE(pattern.ok());
  std::vector<Span> spans;
  Pattern::Search search(*pattern);
  const std::string text = std::string(400000, ' ') + "x";
  const absl::Status status = search.find_all(text, WorkLimit(0.05), spans);
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
}

TEST(UnicodeTest, InvalidBytesBecomeReplacementCharactersByMaximalParts) {
  EXPECT_EQ(valid_utf8("a\xFF!"), "a\uFFFD!");
  EXPECT_EQ(valid_utf8("\xE4\xBD"), "\uFFFD");
  EXPECT_EQ(valid_utf8("\xE4\xBDx"), "\uFFFDx");
  EXPECT_EQ(valid_utf8("\xF0\x9F\x98\xF0\x9F\x98\x80"), "\uFFFD😀");
  EXPECT_EQ(valid_utf8("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");                      // a surrogate
  EXPECT_EQ(valid_utf8("\xC0\xAF\xE0\x80\xAF"), "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD");  // overlong
  EXPECT_EQ(valid_utf8("\xF4\x90\x80\x80"), "\uFFFD\uFFFD\uFFFD\uFFFD");            // above U+10FFFF
  EXPECT_TRUE(is_valid_utf8("aé你😀"));
  for (const char* bad : {"\xFF", "\xC3", "\xED\xA0\x80", "\xC0\xAF", "\xF4\x90\x80\x80"}) {
    EXPECT_FALSE(is_valid_utf8(bad));
  }
}

TEST(UnicodeTest, BytesHaveOneCharacterEach) {
  for (int byte = 0; byte < 256; ++byte) {
    EXPECT_EQ(character_to_byte(byte_to_character(static_cast<uint8_t>(byte))), byte);
  }
  EXPECT_EQ(byte_to_character(' '), 0x120);
  EXPECT_EQ(character_to_byte(' '), -1);
  EXPECT_EQ(character_to_byte(0x144), -1);
}

}  // namespace
}  // namespace trireme::tok
