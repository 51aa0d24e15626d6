#include "engine/tokenizer/regex.h"

#include <time.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/tokenizer/regex_syntax.h"
#include "engine/tokenizer/unicode.h"

namespace trireme::tok {
namespace {

constexpr size_t kMaxPatternBytes = 1 << 16;
constexpr uint32_t kMatchLimit = 20'000'000;
constexpr uint32_t kHeapLimitKib = 64 << 10;
constexpr size_t kJitStackBytes = 8 << 20;
// Start positions tried per call of PCRE2. Each may cost the length of the text, so that between two looks at
// the clock lie at most some hundred times that.
constexpr size_t kWindow = 256;
constexpr int kMatchesPerCheck = 1024;

double thread_seconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

std::string error_text(int code) {
  PCRE2_UCHAR buffer[256];
  pcre2_get_error_message(code, buffer, sizeof buffer);
  return reinterpret_cast<const char*>(buffer);
}

template <auto free_function>
struct Free {
  template <typename T>
  void operator()(T* p) const {
    free_function(p);
  }
};

using CodePtr = std::unique_ptr<pcre2_code, Free<pcre2_code_free>>;
using CompileContextPtr = std::unique_ptr<pcre2_compile_context, Free<pcre2_compile_context_free>>;
using MatchContextPtr = std::unique_ptr<pcre2_match_context, Free<pcre2_match_context_free>>;
using MatchDataPtr = std::unique_ptr<pcre2_match_data, Free<pcre2_match_data_free>>;
using JitStackPtr = std::unique_ptr<pcre2_jit_stack, Free<pcre2_jit_stack_free>>;

}  // namespace

WorkLimit::WorkLimit(double seconds) : limit_seconds_(seconds), end_seconds_(thread_seconds() + seconds) {}

absl::Status WorkLimit::check() const {
  if (thread_seconds() <= end_seconds_) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("the tokenizer's patterns took more than ", limit_seconds_,
                                                   " s of CPU time on this text"));
}

struct Pattern::Code {
  CodePtr compiled;
};

struct Pattern::Search::Pcre2 {
  MatchContextPtr context;
  MatchDataPtr data;
  JitStackPtr stack;
};

Pattern::Pattern(std::string text, std::unique_ptr<Code> code)
    : text_(std::move(text)), code_(std::move(code)) {}
Pattern::Pattern(Pattern&&) noexcept = default;
Pattern& Pattern::operator=(Pattern&&) noexcept = default;
Pattern::~Pattern() = default;

Pattern Pattern::literal(std::string text) { return Pattern(std::move(text), nullptr); }

absl::StatusOr<Pattern> Pattern::regex(std::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("pattern of ", pattern.size(), " bytes, wanted at most ", kMaxPatternBytes));
  }
  auto translated = pcre2_from_oniguruma(pattern);
  if (!translated.ok()) return translated.status();
  const CompileContextPtr context(pcre2_compile_context_create(nullptr));
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  // Ruby's ^ and $ are always those of lines.
  const uint32_t options =
      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C | PCRE2_USE_OFFSET_LIMIT;
  int error = 0;
  size_t error_at = 0;
  CodePtr compiled(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated->data()), translated->size(),
                                 options, &error, &error_at, context.get()));
  if (compiled == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("pattern ", *translated, ": ", error_text(error), " at byte ", error_at, " (PCRE2)"));
  }
  // Without JIT (an architecture it does not know) the interpreter gives the same matches.
  pcre2_jit_compile(compiled.get(), PCRE2_JIT_COMPLETE);
  return Pattern(std::string(pattern), std::unique_ptr<Code>(new Code{std::move(compiled)}));
}

Pattern::Search::Search(const Pattern& pattern) : pattern_(pattern) {
  if (pattern.is_literal()) return;
  pcre2_ = std::make_unique<Pcre2>();
  pcre2_->context.reset(pcre2_match_context_create(nullptr));
  pcre2_->data.reset(pcre2_match_data_create(1, nullptr));
  pcre2_->stack.reset(pcre2_jit_stack_create(32 << 10, kJitStackBytes, nullptr));
  pcre2_set_match_limit(pcre2_->context.get(), kMatchLimit);
  pcre2_set_heap_limit(pcre2_->context.get(), kHeapLimitKib);
  pcre2_jit_stack_assign(pcre2_->context.get(), nullptr, pcre2_->stack.get());
}

Pattern::Search::~Search() = default;

// Tries the starts [from, from + kWindow). The text is known to be valid UTF-8; letting PCRE2 check it again
// would read all of it for every match.
int Pattern::Search::match_window(std::string_view text, size_t from) {
  const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  pcre2_set_offset_limit(pcre2_->context.get(), from + kWindow - 1);
  const auto match = [&](uint32_t options) {
    return pcre2_match(pattern_.code_->compiled.get(), subject, text.size(), from,
                       PCRE2_NO_UTF_CHECK | options, pcre2_->data.get(), pcre2_->context.get());
  };
  const int result = match(0);
  return result == PCRE2_ERROR_JIT_STACKLIMIT ? match(PCRE2_NO_JIT) : result;  // its frames are on the heap
}

absl::StatusOr<bool> Pattern::Search::find_next(std::string_view text, size_t from, const WorkLimit& limit) {
  while (true) {
    const int result = match_window(text, from);
    if (result >= 0) {
      const size_t* offsets = pcre2_get_ovector_pointer(pcre2_->data.get());
      begin_ = std::min(offsets[0], offsets[1]);  // \K in a look-ahead can put the start behind the end
      end_ = offsets[1];
      return true;
    }
    if (result != PCRE2_ERROR_NOMATCH) {
      return absl::ResourceExhaustedError(
          absl::StrCat("pattern ", pattern_.text_, " at byte ", from, " of the text: ", error_text(result)));
    }
    from += kWindow;
    while (from < text.size() && (static_cast<uint8_t>(text[from]) & 0xC0) == 0x80) ++from;
    if (from > text.size()) return false;
    if (absl::Status status = limit.check(); !status.ok()) return status;
  }
}

absl::Status Pattern::Search::find_literal(std::string_view text, std::vector<Span>& spans) {
  size_t previous = 0;
  for (size_t at; (at = text.find(pattern_.text_, previous)) != std::string_view::npos;) {
    if (at > previous) spans.push_back({previous, at, false});
    previous = at + pattern_.text_.size();
    spans.push_back({at, previous, true});
  }
  if (previous < text.size()) spans.push_back({previous, text.size(), false});
  return absl::OkStatus();
}

absl::Status Pattern::Search::find_all(std::string_view text, const WorkLimit& limit,
                                       std::vector<Span>& spans) {
  spans.clear();
  if (pattern_.is_literal()) return find_literal(text, spans);
  size_t from = 0;
  size_t previous = 0;  // end of the last span
  bool matched = false;
  for (int count = 1; from <= text.size(); ++count) {
    if (count % kMatchesPerCheck == 0) {
      if (absl::Status status = limit.check(); !status.ok()) return status;
    }
    const absl::StatusOr<bool> found = find_next(text, from, limit);
    if (!found.ok()) return found.status();
    if (!*found) break;
    if (begin_ == end_ && matched && end_ == previous) {  // an empty match right after a match is passed over
      from = end_ + (end_ < text.size() ? decode_utf8(text, end_).length : 1);
      continue;
    }
    if (begin_ < previous) begin_ = previous;
    if (begin_ > previous) spans.push_back({previous, begin_, false});
    spans.push_back({begin_, end_, true});
    matched = true;
    from = previous = end_;
  }
  if (previous < text.size()) spans.push_back({previous, text.size(), false});
  return absl::OkStatus();
}

}  // namespace trireme::tok
