#include "engine/tokenizer/regex_syntax.h"

#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace trireme::tok {
namespace {

// UTS 18's \w. PCRE2's own \w leaves out marks and connectors; its \s contains U+180E, which lost the
// property.
constexpr const char* kWord = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}";

class Translator {
 public:
  explicit Translator(std::string_view pattern) : in_(pattern) {}

  absl::StatusOr<std::string> run() {
    while (at_ < in_.size() && status_.ok()) step();
    if (!status_.ok()) return status_;
    return out_;
  }

 private:
  bool looking_at(std::string_view text) const { return in_.substr(at_, text.size()) == text; }

  void fail(std::string_view what) {
    if (status_.ok()) status_ = absl::UnimplementedError(absl::StrCat(std::string(what), " at byte ", at_));
  }

  void begin_atom() { atom_ = out_.size(); }

  void step() {
    const char c = in_[at_];
    if (c == '\\') return escape();
    if (c == '[') {
      begin_atom();
      return set();
    }
    if (c == '(') return open_group();
    if (c == ')') {
      if (!groups_.empty()) {
        atom_ = groups_.back();
        groups_.pop_back();
      }
      out_ += in_[at_++];
      return;
    }
    if (c == '{' && interval()) return;
    if (c != '*' && c != '+' && c != '?' && c != '{') begin_atom();
    out_ += in_[at_++];
    while (at_ < in_.size() && (static_cast<unsigned char>(in_[at_]) & 0xC0) == 0x80) out_ += in_[at_++];
  }

  void open_group() {
    groups_.push_back(out_.size());
    out_ += in_[at_++];
    if (at_ >= in_.size() || in_[at_] != '?') return;
    out_ += in_[at_++];
    // In Ruby (?m) lets . match a newline, which PCRE2 calls (?s).
    while (at_ < in_.size() && (absl::ascii_isalpha(in_[at_]) || in_[at_] == '-')) {
      out_ += in_[at_] == 'm' ? 's' : in_[at_];
      ++at_;
    }
  }

  // {n}, {n,}, {n,m}, {,m}; a '+' after it is a second quantifier, never "possessive" as in PCRE2.
  bool interval() {
    size_t end = at_ + 1;
    while (end < in_.size() && (absl::ascii_isdigit(in_[end]) || in_[end] == ',')) ++end;
    if (end >= in_.size() || in_[end] != '}' || end == at_ + 1) return false;
    std::string_view body = in_.substr(at_ + 1, end - at_ - 1);
    out_ += absl::StrCat("{", body[0] == ',' ? "0" : "", std::string(body), "}");
    at_ = end + 1;
    if (at_ < in_.size() && in_[at_] == '+') {
      out_.insert(atom_, "(?:");
      out_ += ")+";
      ++at_;
    }
    return true;
  }

  void escape() {
    begin_atom();
    if (at_ + 1 >= in_.size()) return fail("pattern ends in a backslash");
    const char c = in_[at_ + 1];
    const std::string boundary =
        absl::StrCat("(?:(?<=[", kWord, "])(?![", kWord, "])|(?<![", kWord, "])(?=[", kWord, "]))");
    switch (c) {
      case 'w':
        out_ += absl::StrCat("[", kWord, "]");
        break;
      case 'W':
        out_ += absl::StrCat("[^", kWord, "]");
        break;
      case 'b':
        out_ += boundary;
        break;
      case 'B':
        out_ += absl::StrCat("(?!", boundary, ")");
        break;
      case 'h':
        out_ += "[0-9a-fA-F]";
        break;
      case 'H':
        out_ += "[^0-9a-fA-F]";
        break;
      default:
        return common_escape();
    }
    at_ += 2;
  }

  // What means the same inside and outside of a set.
  void common_escape() {
    if (at_ + 1 >= in_.size()) return fail("pattern ends in a backslash");
    const char c = in_[at_ + 1];
    at_ += 2;
    switch (c) {
      case 's':
        out_ += "\\p{White_Space}";
        return;
      case 'S':
        out_ += "\\P{White_Space}";
        return;
      case 'd':
        out_ += "\\p{Nd}";
        return;
      case 'D':
        out_ += "\\P{Nd}";
        return;
      case 'u': {
        const std::string_view hex = in_.substr(at_, 4);
        for (const char digit : hex) {
          if (!absl::ascii_isxdigit(digit)) return fail("\\u without four hexadecimal digits");
        }
        if (hex.size() != 4) return fail("\\u without four hexadecimal digits");
        out_ += absl::StrCat("\\x{", std::string(hex), "}");
        at_ += 4;
        return;
      }
      default:
        out_ += std::string("\\").append(in_.substr(at_ - 1, 1));
    }
  }

  // at_ is on '['. A set inside a set is a union in Oniguruma, so its members join the outer one.
  void set() {
    out_ += in_[at_++];
    if (at_ < in_.size() && in_[at_] == '^') out_ += in_[at_++];
    members(1);
    out_ += ']';
  }

  void members(int depth) {
    if (depth > 16) return fail("sets nested deeper than 16");
    bool first = true;
    while (status_.ok()) {
      if (at_ >= in_.size()) return fail("set without its ]");
      const char c = in_[at_];
      if (c == ']' && !first) {
        ++at_;
        return;
      }
      if (looking_at("&&")) return fail("intersection && inside a set");
      if (c == '\\') {
        set_escape();
      } else if (looking_at("[:")) {
        posix_class();
      } else if (c == '[') {
        ++at_;
        if (looking_at("^")) return fail("a negated set inside a set");
        members(depth + 1);
      } else {
        if (c == ']') out_ += '\\';
        out_ += in_[at_++];
      }
      first = false;
    }
  }

  void posix_class() {
    const size_t end = in_.find(":]", at_);
    if (end == std::string_view::npos) {  // two ordinary members
      out_ += "\\[:";
      at_ += 2;
      return;
    }
    out_ += in_.substr(at_, end + 2 - at_);
    at_ = end + 2;
  }

  void set_escape() {
    const char c = at_ + 1 < in_.size() ? in_[at_ + 1] : '\0';
    if (c == 'W' || c == 'H') return fail(absl::StrCat("\\", std::string(1, c), " inside a set"));
    if (c != 'w' && c != 'h') return common_escape();
    out_ += c == 'w' ? kWord : "0-9a-fA-F";
    at_ += 2;
  }

  std::string_view in_;
  size_t at_ = 0;
  std::string out_;
  size_t atom_ = 0;             // where the last atom begins in out_
  std::vector<size_t> groups_;  // where the open groups begin in out_
  absl::Status status_;
};

}  // namespace

absl::StatusOr<std::string> pcre2_from_oniguruma(std::string_view pattern) {
  return Translator(pattern).run();
}

}  // namespace trireme::tok
