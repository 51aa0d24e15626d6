#pragma once
// The worker's side of Cluster.JoinJob.

#include <chrono>
#include <string>

#include "absl/status/statusor.h"
#include "trireme/v1/cluster.pb.h"

namespace trireme::worker {

/// Asks the coordinator for the layout of a job. While it cannot be reached it is asked again with back-off,
/// with one log line at the first failure; UNAVAILABLE after `timeout`. A refusal comes back at once.
absl::StatusOr<v1::JoinJobResponse> join_job(const std::string& coordinator,
                                             const v1::JoinJobRequest& request,
                                             std::chrono::milliseconds timeout);

}  // namespace trireme::worker
