#pragma once
// From a world of ranks to replicas: what the ranks of one job agree on before they load anything.

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/parallel/process_group.h"
#include "engine/plan/shard_plan.h"
#include "trireme/v1/cluster.pb.h"
#include "trireme/v1/job.pb.h"

namespace trireme::worker {

/// Answers what the job consists of with a layout: a coordinator, or this process.
using LayoutSource = std::function<absl::StatusOr<v1::JoinJobResponse>(const v1::JoinJobRequest&)>;

/// One rank's part in the job.
struct RankAssignment {
  std::string job_id;
  std::string replica_id;
  int replica_index = 0;  // color of the split
  int tp_rank = 0;        // 0: the leader
  int tp_size = 1;
  int num_threads = 0;
  int local_ranks = 1;              // of this job on this host
  int64_t kv_bytes_per_rank = 0;    // 0: fitted to what is left
  std::vector<v1::RankInfo> ranks;  // of the replica, leader first
};

/// Plans without a coordinator, with the same function that one would use.
absl::StatusOr<v1::JoinJobResponse> plan_alone(const v1::JoinJobRequest& request);

/// Gathers the reports on world rank 0, which asks `source` and broadcasts the answer. Collective. `request`
/// needs only be filled on rank 0, but for its ranks. When any rank cannot start, or there is no layout, all
/// ranks get the same error. Waits for `deadline` at most.
absl::StatusOr<RankAssignment> plan_job(HostGroup& world, const v1::RankReport& own,
                                        v1::JoinJobRequest request, const LayoutSource& source,
                                        std::chrono::milliseconds deadline);

/// Threads per rank where the user does not say: ranks that share processors share them evenly. `cpus` are
/// those each of the host's ranks may run on.
int share_of_threads(const std::vector<std::vector<int>>& cpus, size_t rank);

}  // namespace trireme::worker
