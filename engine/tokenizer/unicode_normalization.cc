#include "engine/tokenizer/unicode_normalization.h"

#include <utf8proc.h>

#include <algorithm>
#include <vector>

#include "engine/tokenizer/unicode.h"

namespace trireme::tok {
namespace {

int combining_class(utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; }

void decompose(const std::string& text, bool compatibility, std::vector<utf8proc_int32_t>& out) {
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE |
                                                      (compatibility ? UTF8PROC_COMPAT : 0));
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = decode_utf8(text, at);
    at += c.length;
    utf8proc_int32_t parts[32];  // U+FDFA has the longest decomposition, 18
    int boundary = 0;
    const utf8proc_ssize_t count =
        utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c.value), parts, 32, options, &boundary);
    if (count > 0 && count <= 32) {
      out.insert(out.end(), parts, parts + count);
    } else {
      out.push_back(static_cast<utf8proc_int32_t>(c.value));
    }
  }
}

// Canonical order of each run of marks. utf8proc_decompose() would do this by exchanging neighbours, which is
// quadratic in a long run.
void order_marks(std::vector<utf8proc_int32_t>& text) {
  for (size_t at = 0; at < text.size();) {
    if (combining_class(text[at]) == 0) {
      ++at;
      continue;
    }
    size_t end = at + 1;
    while (end < text.size() && combining_class(text[end]) != 0) ++end;
    std::stable_sort(text.begin() + static_cast<ptrdiff_t>(at), text.begin() + static_cast<ptrdiff_t>(end),
                     [](auto a, auto b) { return combining_class(a) < combining_class(b); });
    at = end;
  }
}

}  // namespace

void normalize_unicode(NormalizationForm form, std::string& text) {
  if (std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; }))
    return;
  const bool compose = form == NormalizationForm::kNfc || form == NormalizationForm::kNfkc;
  const bool compatibility = form == NormalizationForm::kNfkc || form == NormalizationForm::kNfkd;
  std::vector<utf8proc_int32_t> points;
  points.reserve(text.size() + 1);
  decompose(text, compatibility, points);
  order_marks(points);
  size_t count = points.size();
  if (compose) {
    const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    const utf8proc_ssize_t composed =
        utf8proc_normalize_utf32(points.data(), static_cast<utf8proc_ssize_t>(count), options);
    if (composed >= 0) count = static_cast<size_t>(composed);
  }
  text.clear();
  for (size_t i = 0; i < count; ++i) append_utf8(static_cast<uint32_t>(points[i]), text);
}

}  // namespace trireme::tok
