#pragma once
// What the ranks of a group must agree on before they go on together. Collective; every wait has the given
// deadline.

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/parallel/process_group.h"

namespace trireme {

/// OK on every rank when `mine` is OK on all; else, on every rank, the first error by rank, naming the rank.
absl::Status agree_on_success(HostGroup& group, const absl::Status& mine, std::chrono::milliseconds deadline);

/// The smallest value any rank gave.
absl::StatusOr<int64_t> agree_on_minimum(HostGroup& group, int64_t mine, std::chrono::milliseconds deadline);

/// Whether `mine` is true on any rank.
absl::StatusOr<bool> agree_on_any(HostGroup& group, bool mine, std::chrono::milliseconds deadline);

/// Bytes of every rank, by rank, on every rank.
absl::StatusOr<std::vector<std::string>> share_bytes(HostGroup& group, const std::string& mine,
                                                     std::chrono::milliseconds deadline);

}  // namespace trireme
