#include "engine/tokenizer/stop_matcher.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

namespace trireme {
namespace {

struct Outcome {
  std::string text;
  bool matched = false;
  bool operator==(const Outcome&) const = default;
};

std::ostream& operator<<(std::ostream& out, const Outcome& outcome) {
  return out << '"' << outcome.text << '"' << (outcome.matched ? " matched" : " unmatched");
}

Outcome run(const std::vector<std::string>& stops, const std::vector<std::string>& pieces) {
  StopMatcher matcher(stops);
  Outcome outcome;
  for (const std::string& piece : pieces) outcome.text += matcher.append(piece);
  outcome.text += matcher.finish();
  outcome.matched = matcher.matched();
  return outcome;
}

/// Looks at every end in turn, and there at every string: the definition.
Outcome run_naively(const std::vector<std::string>& stops, const std::string& text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (stop.empty() || stop.size() > end) continue;
      if (text.compare(end - stop.size(), stop.size(), stop) == 0) longest = std::max(longest, stop.size());
    }
    if (longest > 0) return {text.substr(0, end - longest), true};
  }
  return {text, false};
}

TEST(StopMatcherTest, TextEndsBeforeTheMatch) {
  EXPECT_EQ(run({"END"}, {"one two END three"}), (Outcome{"one two ", true}));
  EXPECT_EQ(run({"one"}, {"one two"}), (Outcome{"", true}));
}

TEST(StopMatcherTest, MatchAcrossPiecesIsFound) {
  EXPECT_EQ(run({"\n\n"}, {"a", "\n", "\n", "b"}), (Outcome{"a", true}));
  EXPECT_EQ(run({"stop"}, {"s", "t", "o", "p"}), (Outcome{"", true}));
}

TEST(StopMatcherTest, OnlyWhatMayBecomeAMatchIsHeldBack) {
  StopMatcher matcher({"abcd", "x"});
  EXPECT_EQ(matcher.append("zzab"), "zz");
  EXPECT_EQ(matcher.append("c"), "");
  EXPECT_EQ(matcher.append(""), "");
  EXPECT_EQ(matcher.append("e"), "abce");
  EXPECT_FALSE(matcher.matched());
}

TEST(StopMatcherTest, FailedPartialMatchFallsBackToItsBorder) {
  EXPECT_EQ(run({"aab"}, {"aaa", "b"}), (Outcome{"a", true}));
  EXPECT_EQ(run({"ababc"}, {"abab", "abc"}), (Outcome{"ab", true}));
}

TEST(StopMatcherTest, FirstCompleteMatchWinsAndTheLongestOfThoseEndingTogether) {
  EXPECT_EQ(run({"bc", "abcd"}, {"xabcd"}), (Outcome{"xa", true}));
  EXPECT_EQ(run({"c", "abc"}, {"xabc"}), (Outcome{"x", true}));
}

TEST(StopMatcherTest, CharactersOfSeveralBytesMatchWhole) {
  EXPECT_EQ(run({"é"}, {"caf", "é au"}), (Outcome{"caf", true}));
  // The same lead byte, another character.
  EXPECT_EQ(run({"é"}, {"voilà"}), (Outcome{"voilà", false}));
}

TEST(StopMatcherTest, NothingMatchesWithoutStops) {
  EXPECT_EQ(run({}, {"a", "b"}), (Outcome{"ab", false}));
  EXPECT_EQ(run({""}, {"a", "b"}), (Outcome{"ab", false}));
}

TEST(StopMatcherTest, MatchThatMayNotStopIsPassedOver) {
  StopMatcher matcher({"aa"});
  EXPECT_EQ(matcher.append("aa", false), "a");
  EXPECT_EQ(matcher.append("b", true), "ab");
  EXPECT_FALSE(matcher.matched());
  EXPECT_EQ(matcher.append("caa", true), "c");
  EXPECT_TRUE(matcher.matched());
  EXPECT_EQ(matcher.append("more"), "");
  EXPECT_EQ(matcher.finish(), "");
}

TEST(StopMatcherTest, AnyCuttingIntoPiecesGivesTheSame) {
  std::mt19937 random(7);
  const auto draw = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  const auto word = [&](int max_length) {
    std::string text;
    for (int i = 1 + draw(max_length); i > 0; --i) text.push_back(static_cast<char>('a' + draw(2)));
    return text;
  };
  int num_matched = 0;
  for (int round = 0; round < 3000; ++round) {
    std::vector<std::string> stops;
    for (int i = draw(4); i >= 0; --i) stops.push_back(word(8));
    const std::string text = word(40);
    std::vector<std::string> pieces;
    for (size_t at = 0; at < text.size();) {
      const size_t length = 1 + static_cast<size_t>(draw(5));
      pieces.push_back(text.substr(at, length));
      at += length;
    }
    const Outcome expected = run_naively(stops, text);
    num_matched += expected.matched ? 1 : 0;
    ASSERT_EQ(run(stops, pieces), expected) << text;
  }
  EXPECT_GT(num_matched, 100);
  EXPECT_LT(num_matched, 2900);
}

}  // namespace
}  // namespace trireme
