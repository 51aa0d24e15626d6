#pragma once
// What one rank can say of itself and of its host, for `trireme doctor`.

#include <string>

#include "trireme/v1/doctor.pb.h"

namespace trireme::client {

/// Everything of RankFacts but what ranks measure together. Never fails: what cannot be found out is left
/// empty, and a model that cannot be loaded is named in model_error.
v1::RankFacts gather_facts(int rank, const std::string& model_dir);

}  // namespace trireme::client
