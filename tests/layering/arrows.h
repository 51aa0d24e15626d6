#pragma once
// Which part of the source may include which: proto <- coordinator; proto <- worker -> engine -> kernels.

#include <string>

namespace trireme::layering {

/// What a line includes, without quotes or brackets; empty when it is no #include.
std::string included_header(const std::string& line);

/// Why `file` (a path from the repository root) may not include `header` (as written between the quotes or
/// brackets); empty when it may.
std::string include_violation(const std::string& file, const std::string& header);

/// Why a line may not stand in `file`; empty when it may. Conditional compilation belongs to kernels/ and the
/// build.
std::string line_violation(const std::string& file, const std::string& line);

}  // namespace trireme::layering
