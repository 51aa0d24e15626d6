#pragma once
// What a collective benchmark found, for people and for programs.

#include <nlohmann/json.hpp>
#include <string>

#include "launch/client/collective_bench.h"

namespace trireme::client {

/// A table in the manner of nccl-tests; lines that are not figures begin with '#'.
std::string to_text(const CollectiveBenchReport& report);
nlohmann::json to_json(const CollectiveBenchReport& report);

/// What to_json() gives, field by field.
extern const char kCollectiveJsonHelp[];

}  // namespace trireme::client
