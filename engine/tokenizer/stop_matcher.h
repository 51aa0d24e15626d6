#pragma once
// Finds stop strings in a stream of text.

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace trireme {

/// Passes text on until one of the stop strings has appeared, whatever pieces the text comes in. The match
/// that is complete first wins, the longest of several that end at the same byte; the text ends before it.
/// What may still become a match is held back. Time per byte is amortized O(number of strings) (Knuth, Morris
/// and Pratt, doi:10.1137/0206024). One thread.
class StopMatcher {
 public:
  /// Empty strings are ignored.
  explicit StopMatcher(const std::vector<std::string>& stops);

  /// The text that is certain now. Matches that complete inside this piece do not count when `may_stop` is
  /// false. After a match everything is swallowed.
  std::string append(std::string_view piece, bool may_stop = true);
  /// What is still held back. Call once, at the end.
  std::string finish();
  bool matched() const { return matched_; }

 private:
  struct Pattern {
    std::string text;
    std::vector<size_t> border;  // [i]: longest proper border of the first i + 1 bytes
    size_t length = 0;           // bytes of it that the text ends with
  };
  static size_t advance(const Pattern& pattern, char byte);

  std::vector<Pattern> patterns_;
  std::string held_;  // the tail of the text that is a beginning of a pattern
  bool matched_ = false;
};

}  // namespace trireme
