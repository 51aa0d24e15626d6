#include "engine/tokenizer/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace trireme {

StopMatcher::StopMatcher(const std::vector<std::string>& stops) {
  for (const std::string& stop : stops) {
    if (stop.empty()) continue;
    Pattern pattern;
    pattern.text = stop;
    pattern.border.assign(stop.size(), 0);
    for (size_t i = 1, length = 0; i < stop.size(); ++i) {
      while (length > 0 && stop[i] != stop[length]) length = pattern.border[length - 1];
      if (stop[i] == stop[length]) ++length;
      pattern.border[i] = length;
    }
    patterns_.push_back(std::move(pattern));
  }
}

size_t StopMatcher::advance(const Pattern& pattern, char byte) {
  size_t length = pattern.length;
  while (length > 0 && pattern.text[length] != byte) length = pattern.border[length - 1];
  return pattern.text[length] == byte ? length + 1 : 0;
}

std::string StopMatcher::append(std::string_view piece, bool may_stop) {
  if (matched_) return {};
  std::string text = std::move(held_);
  held_.clear();
  size_t keep = 0;
  for (const char byte : piece) {
    text.push_back(byte);
    size_t longest_match = 0;
    keep = 0;
    for (Pattern& pattern : patterns_) {
      pattern.length = advance(pattern, byte);
      if (pattern.length == pattern.text.size()) {
        longest_match = std::max(longest_match, pattern.length);
        // A match that does not count leaves only its border open.
        if (!may_stop) pattern.length = pattern.border[pattern.length - 1];
      }
      keep = std::max(keep, pattern.length);
    }
    if (may_stop && longest_match > 0) {
      matched_ = true;
      text.resize(text.size() - longest_match);
      return text;
    }
  }
  if (piece.empty()) keep = text.size();
  held_ = text.substr(text.size() - keep);
  text.resize(text.size() - keep);
  return text;
}

std::string StopMatcher::finish() { return std::exchange(held_, {}); }

}  // namespace trireme
