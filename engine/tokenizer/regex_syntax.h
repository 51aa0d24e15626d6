#pragma once
// tokenizer.json holds patterns in the syntax of Oniguruma (Ruby's); PCRE2 differs in some corners.

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace trireme::tok {

/// The PCRE2 pattern (UTF, UCP, MULTILINE, newline LF) that matches what `pattern` matches in Oniguruma:
/// \s, \w, \d, \h and \b by Unicode's properties, sets inside sets, \uHHHH, (?m), {n,m}+ (no possessive
/// there). UNIMPLEMENTED naming what has no counterpart: set intersection, negated sets and \W inside a set.
/// Source: Oniguruma's doc/RE, pcre2pattern(3).
absl::StatusOr<std::string> pcre2_from_oniguruma(std::string_view pattern);

}  // namespace trireme::tok
