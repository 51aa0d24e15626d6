#pragma once
// Patterns of tokenizer.json: a literal string, or a regular expression run by PCRE2's JIT.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace trireme::tok {

struct Span {
  size_t begin;
  size_t end;
  bool is_match;
};

/// Bounds what the patterns of one encode() may cost. A pattern can be quadratic in the text without any one
/// match being long (\s+$ on spaces), which PCRE2's match limit does not see; so the thread's CPU time is
/// bounded too: 2 s and 2 s more per MiB of text.
class WorkLimit {
 public:
  static WorkLimit for_text(size_t text_bytes) {
    return WorkLimit(2.0 + 2.0 * static_cast<double>(text_bytes) / (1 << 20));
  }
  /// From now on, for the thread that asks.
  explicit WorkLimit(double seconds);
  /// RESOURCE_EXHAUSTED once the time is spent. Cheap enough to call per window, not per match.
  absl::Status check() const;

 private:
  double limit_seconds_;
  double end_seconds_;
};

/// Immutable; any number of threads may search with it.
class Pattern {
 public:
  /// INVALID_ARGUMENT or UNIMPLEMENTED saying what is wrong where in the pattern (Oniguruma's syntax).
  static absl::StatusOr<Pattern> regex(std::string_view pattern);
  /// Finds exactly this text, which must not be empty.
  static Pattern literal(std::string text);

  Pattern(Pattern&&) noexcept;
  Pattern& operator=(Pattern&&) noexcept;
  ~Pattern();

  bool is_literal() const { return code_ == nullptr; }
  const std::string& text() const { return text_; }

  /// One thread's search state.
  class Search {
   public:
    explicit Search(const Pattern& pattern);
    ~Search();
    Search(const Search&) = delete;
    /// Replaces `spans` by spans that cover `text` (valid UTF-8) from end to end: the matches, from left to
    /// right, and what lies between. RESOURCE_EXHAUSTED when a limit of PCRE2 or `limit` is reached.
    absl::Status find_all(std::string_view text, const WorkLimit& limit, std::vector<Span>& spans);

   private:
    absl::Status find_literal(std::string_view text, std::vector<Span>& spans);
    absl::StatusOr<bool> find_next(std::string_view text, size_t from, const WorkLimit& limit);
    int match_window(std::string_view text, size_t from);

    struct Pcre2;
    const Pattern& pattern_;
    std::unique_ptr<Pcre2> pcre2_;
    size_t begin_ = 0;  // of the last match
    size_t end_ = 0;
  };

 private:
  struct Code;
  Pattern(std::string text, std::unique_ptr<Code> code);

  std::string text_;
  std::unique_ptr<Code> code_;  // null for a literal
};

}  // namespace trireme::tok
