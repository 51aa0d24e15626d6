#pragma once
// What `trireme bench engine --json` and `trireme bench collectives --json` wrote, for projections.

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/plan/projection.h"

namespace trireme::client {

struct ShardMeasurements {
  std::string backend, compute_dtype;
  std::string model;  // directory or config.json; "" where the files do not say
  ShardRun run;
  std::vector<ShardTime> shards;
};

/// Adds the file's shard. INVALID_ARGUMENT or NOT_FOUND naming the file and field: not such a file, ranks
/// that talked to each other while they were measured, another model, workload or backend than before.
absl::Status read_shard_file(const std::string& path, ShardMeasurements& measurements);

/// Adds the fit of the file's all-reduce by its number of ranks. Its uncertainty is the fit's root mean
/// square residual, at least 5 %. Errors as above; a file without a fit, or a second one of as many ranks.
absl::Status read_collective_file(const std::string& path, std::map<int, CollectiveEstimate>& collectives);

}  // namespace trireme::client
