#pragma once
// What this process finds when it starts: its model's shape, its host, its processors.

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/config.h"
#include "trireme/v1/cluster.pb.h"
#include "trireme/v1/job.pb.h"
#include "worker/options.h"

namespace trireme::worker {

/// config.json of the model that is to be served, and the name clients call it by.
struct LocalModel {
  ModelConfig config;
  std::string name;
};
absl::StatusOr<LocalModel> identify_model(const WorkerOptions& options);

std::string host_name();

/// This rank's report to world rank 0: host, device, memory, processors, and the hash of what `model` found,
/// or the error it met.
v1::RankReport make_rank_report(int rank, const WorkerOptions& options,
                                const absl::StatusOr<LocalModel>& model);

/// The model as the planner and a coordinator need it, with the dtype it will be computed in.
absl::StatusOr<v1::ModelInfo> describe_model(const LocalModel& model, const WorkerOptions& options,
                                             const std::string& tokenizer_hash);

}  // namespace trireme::worker
