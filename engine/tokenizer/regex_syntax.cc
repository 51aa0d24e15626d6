#include "engine/tokenizer/regex_syntax.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace trireme::tok {
namespace {

// PCRE2's own \w leaves out marks and connectors; its \s contains U+180E, which lost the property.
constexpr const char* kWord = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}";
// Superscripts and fractions of Latin 1: Oniguruma's \w has them where it stands alone, but not in a set.
constexpr const char* kWordEscape = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}";

using Names = std::pair<std::string_view, const char*>;

// [:name:], where PCRE2 means ASCII symbols only or another set of letters.
constexpr Names kPosixClasses[] = {
    {"alpha", "\\p{Alphabetic}"},
    {"alnum", "\\p{Alphabetic}\\p{Nd}"},
    {"punct", "\\p{P}\\p{S}"},
    {"upper", "\\p{Uppercase}"},
    {"lower", "\\p{Lowercase}"},
    {"space", "\\p{White_Space}"},
    {"blank", "\\p{Zs}\\t"},
    {"cntrl", "\\p{Cc}"},
    {"digit", "\\p{Nd}"},
    {"xdigit", "0-9a-fA-F"},
    {"word", kWord},
    {"graph", "[:graph:]"},
    {"print", "[:print:]"},
    {"ascii", "\\x{00}-\\x{7F}"},
};

// PCRE2 10.42 has the short names alone.
constexpr Names kCategories[] = {
    {"Letter", "L"},
    {"Mark", "M"},
    {"Number", "N"},
    {"Punctuation", "P"},
    {"Symbol", "S"},
    {"Separator", "Z"},
    {"Other", "C"},
    {"Uppercase_Letter", "Lu"},
    {"Lowercase_Letter", "Ll"},
    {"Titlecase_Letter", "Lt"},
    {"Modifier_Letter", "Lm"},
    {"Other_Letter", "Lo"},
    {"Nonspacing_Mark", "Mn"},
    {"Decimal_Number", "Nd"},
};

const char* find_name(const Names* begin, const Names* end, std::string_view name) {
  for (const Names* entry = begin; entry != end; ++entry) {
    if (entry->first == name) return entry->second;
  }
  return nullptr;
}

// A bare \p{Han} means "has Han among its Script_Extensions" to PCRE2, the script itself to Oniguruma.
bool is_script(std::string_view name) {
  const std::string pattern = absl::StrCat("\\p{sc:", std::string(name), "}");
  int error = 0;
  size_t error_at = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_UTF,
                                   &error, &error_at, nullptr);
  pcre2_code_free(code);
  return code != nullptr;
}

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
    const std::string set = absl::StrCat("[", kWordEscape, "]");
    const std::string boundary = absl::StrCat("(?:(?<=", set, ")(?!", set, ")|(?<!", set, ")(?=", set, "))");
    const std::pair<char, std::string> replacements[] = {
        {'w', set},           {'W', absl::StrCat("[^", kWordEscape, "]")},
        {'b', boundary},      {'B', absl::StrCat("(?!", boundary, ")")},
        {'h', "[0-9a-fA-F]"}, {'H', "[^0-9a-fA-F]"}};
    for (const auto& [letter, replacement] : replacements) {
      if (in_[at_ + 1] != letter) continue;
      out_ += replacement;
      at_ += 2;
      return;
    }
    common_escape();
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
      case 'p':
      case 'P':
        return property(c);
      default:
        out_ += std::string("\\").append(in_.substr(at_ - 1, 1));
        if (c == 'x' || c == 'o') copy_braces();
    }
  }

  void copy_braces() {
    if (!looking_at("{")) return;
    const size_t end = std::min(in_.find('}', at_), in_.size() - 1);
    out_ += in_.substr(at_, end + 1 - at_);
    at_ = end + 1;
  }

  // at_ is behind \p or \P.
  void property(char p) {
    const size_t end = in_.find('}', at_);
    if (!looking_at("{") || end == std::string_view::npos) return fail("\\p without {name}");
    std::string_view name = in_.substr(at_ + 1, end - at_ - 1);
    at_ = end + 1;
    const bool negated = name.starts_with('^');
    if (negated) name.remove_prefix(1);
    const char* category = find_name(std::begin(kCategories), std::end(kCategories), name);
    const bool script = category == nullptr && is_script(name);
    out_ += absl::StrCat(negated == (p == 'P') ? "\\p{" : "\\P{", script ? "sc:" : "",
                         category != nullptr ? std::string(category) : std::string(name), "}");
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
      if (looking_at("-[") && !first && !looking_at("-[:")) return fail("a range up to a set");
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
        // A hyphen at the edge of a set is no range, and must not become one when sets are joined.
        const char next = at_ + 1 < in_.size() ? in_[at_ + 1] : ']';
        if (c == ']' || (c == '-' && (first || next == ']' || next == '['))) out_ += '\\';
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
    const std::string_view name = in_.substr(at_ + 2, end - at_ - 2);
    const char* members = find_name(std::begin(kPosixClasses), std::end(kPosixClasses), name);
    if (members == nullptr) return fail(absl::StrCat("[:", std::string(name), ":]"));
    out_ += members;
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
