#pragma once
// Unicode's four normalization forms, in linear time but for the sorting of marks.

#include <string>

namespace trireme::tok {

enum class NormalizationForm { kNfc, kNfd, kNfkc, kNfkd };

/// Changes `text`, valid UTF-8, in place. Source: Unicode 15, UAX 15; the tables are utf8proc's.
void normalize_unicode(NormalizationForm form, std::string& text);

}  // namespace trireme::tok
