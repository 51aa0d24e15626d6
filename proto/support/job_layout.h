#pragma once
// Job messages in the shard planner's terms: coordinators plan with it, and workers that have none.

#include "absl/status/statusor.h"
#include "engine/plan/shard_plan.h"
#include "trireme/v1/cluster.pb.h"

namespace trireme::rpc {

ModelShape model_shape(const v1::ModelInfo& model);

/// The planner's layout for a job, its replicas named JOB-0, JOB-1, ...; `tensor_parallel_size` 0: the
/// smallest that fits. Errors are the planner's.
absl::StatusOr<v1::JoinJobResponse> plan_layout(const v1::JoinJobRequest& request, int tensor_parallel_size);

}  // namespace trireme::rpc
