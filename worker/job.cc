#include "worker/job.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/support/job_layout.h"

namespace trireme::worker {

namespace {

absl::Status status_of(int code, const std::string& message) {
  return absl::Status(static_cast<absl::StatusCode>(code), message);
}

/// A message as a broadcast carries it: its length in bytes, then the bytes.
std::vector<int32_t> to_words(const std::string& bytes) {
  std::vector<int32_t> words(1 + (bytes.size() + 3) / 4);
  words[0] = static_cast<int32_t>(bytes.size());
  std::memcpy(words.data() + 1, bytes.data(), bytes.size());
  return words;
}

std::optional<v1::JobPlan> from_words(const std::vector<int32_t>& words) {
  if (words.empty() || words[0] < 0 || static_cast<size_t>(words[0]) > (words.size() - 1) * 4) {
    return std::nullopt;
  }
  v1::JobPlan plan;
  if (!plan.ParseFromArray(words.data() + 1, words[0])) return std::nullopt;
  return plan;
}

absl::StatusOr<std::vector<v1::RankReport>> read_reports(const std::vector<std::string>& texts) {
  std::vector<v1::RankReport> reports(texts.size());
  for (size_t rank = 0; rank < texts.size(); ++rank) {
    v1::RankReport& report = reports[rank];
    if (!report.ParseFromString(texts[rank])) {
      return absl::InternalError(absl::StrCat("rank ", rank, ": its report cannot be read"));
    }
    if (report.error_code() != 0) {
      const std::string where =
          texts.size() == 1 ? "" : absl::StrCat("rank ", rank, " on ", report.info().host(), ": ");
      return status_of(report.error_code(), absl::StrCat(where, report.error_message()));
    }
    if (report.config_hash() != reports[0].config_hash()) {
      return absl::FailedPreconditionError(
          absl::StrCat("rank ", rank, " on ", report.info().host(), " has another config.json (hash ",
                       report.config_hash(), ") than rank 0 (", reports[0].config_hash(), ")"));
    }
  }
  return reports;
}

/// Fills the plan's ranks: memory and processors of a host are shared by its ranks.
void share_hosts(const std::vector<v1::RankReport>& reports, v1::JobPlan& plan) {
  for (const v1::RankReport& report : reports) {
    std::vector<std::vector<int>> cpus;
    size_t place = 0;
    for (const v1::RankReport& other : reports) {
      if (other.info().host() != report.info().host()) continue;
      if (&other == &report) place = cpus.size();
      cpus.emplace_back(other.cpus().begin(), other.cpus().end());
    }
    v1::RankInfo& info = *plan.add_ranks();
    info = report.info();
    const auto local_ranks = static_cast<int>(cpus.size());
    if (!report.has_own_memory()) info.set_memory_bytes(info.memory_bytes() / local_ranks);
    if (info.num_threads() == 0) info.set_num_threads(share_of_threads(cpus, place));
    plan.add_local_ranks(local_ranks);
  }
}

/// Every rank exactly once, and all replicas of the size that was said.
absl::Status check_layout(const v1::JoinJobResponse& layout, int world_size) {
  std::vector<int> uses(static_cast<size_t>(world_size), 0);
  for (const v1::ReplicaPlan& replica : layout.replicas()) {
    if (replica.ranks_size() != layout.tensor_parallel_size()) {
      return absl::InternalError(absl::StrCat("plan: replica ", replica.replica_id(), " has ",
                                              replica.ranks_size(), " ranks, wanted ",
                                              layout.tensor_parallel_size()));
    }
    for (int rank : replica.ranks()) {
      if (rank < 0 || rank >= world_size) {
        return absl::InternalError(absl::StrCat("plan: rank ", rank, " in a world of ", world_size));
      }
      uses[static_cast<size_t>(rank)] += 1;
    }
  }
  for (int rank = 0; rank < world_size; ++rank) {
    const int used = uses[static_cast<size_t>(rank)];
    if (used != 1) {
      return absl::FailedPreconditionError(
          absl::StrCat("plan: rank ", rank, " of ", world_size, " is used ", used, " times, wanted once"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::JobPlan> make_plan(const std::vector<std::string>& texts, v1::JoinJobRequest& request,
                                      const LayoutSource& source) {
  const auto reports = read_reports(texts);
  if (!reports.ok()) return reports.status();
  v1::JobPlan plan;
  share_hosts(*reports, plan);
  plan.set_job_id(request.job_id());
  *request.mutable_ranks() = plan.ranks();
  const auto layout = source(request);
  if (!layout.ok()) return layout.status();
  if (auto status = check_layout(*layout, static_cast<int>(texts.size())); !status.ok()) return status;
  *plan.mutable_layout() = *layout;
  return plan;
}

absl::StatusOr<RankAssignment> assignment_of(const v1::JobPlan& plan, int world_rank) {
  if (plan.error_code() != 0) return status_of(plan.error_code(), plan.error_message());
  RankAssignment assignment;
  assignment.job_id = plan.job_id();
  assignment.tp_size = plan.layout().tensor_parallel_size();
  assignment.kv_bytes_per_rank = plan.layout().kv_bytes_per_rank();
  assignment.local_ranks = plan.local_ranks(world_rank);
  assignment.num_threads = plan.ranks(world_rank).num_threads();
  for (int i = 0; i < plan.layout().replicas_size(); ++i) {
    const v1::ReplicaPlan& replica = plan.layout().replicas(i);
    const auto place = std::find(replica.ranks().begin(), replica.ranks().end(), world_rank);
    if (place == replica.ranks().end()) continue;
    assignment.replica_id = replica.replica_id();
    assignment.replica_index = i;
    assignment.tp_rank = static_cast<int>(place - replica.ranks().begin());
    for (int rank : replica.ranks()) assignment.ranks.push_back(plan.ranks(rank));
  }
  return assignment;
}

}  // namespace

int share_of_threads(const std::vector<std::vector<int>>& cpus, size_t rank) {
  // A rank has each of its processors together with all others that may run there.
  double share = 0;
  for (int cpu : cpus[rank]) {
    const auto has = [cpu](const std::vector<int>& other) {
      return std::find(other.begin(), other.end(), cpu) != other.end();
    };
    share += 1.0 / static_cast<double>(std::count_if(cpus.begin(), cpus.end(), has));
  }
  // 3 times a third is a little less than 1.
  return std::max(1, static_cast<int>(share + 1e-6));
}

absl::StatusOr<v1::JoinJobResponse> plan_alone(const v1::JoinJobRequest& request) {
  return rpc::plan_layout(request, request.wanted_tensor_parallel_size());
}

absl::StatusOr<RankAssignment> plan_job(HostGroup& world, const v1::RankReport& own,
                                        v1::JoinJobRequest request, const LayoutSource& source,
                                        std::chrono::milliseconds deadline) {
  const auto texts = world.gather(own.SerializeAsString(), 0, deadline);
  if (!texts.ok()) return texts.status();
  std::vector<int32_t> words;
  if (world.rank() == 0) {
    auto plan = make_plan(*texts, request, source);
    if (!plan.ok()) {
      const absl::Status error = plan.status();
      plan = v1::JobPlan();
      plan->set_error_code(static_cast<int>(error.code()));
      plan->set_error_message(std::string(error.message()));
    }
    words = to_words(plan->SerializeAsString());
  }
  if (auto status = world.broadcast(words, 0, deadline); !status.ok()) return status;
  const auto plan = from_words(words);
  if (!plan) return absl::InternalError("the job's plan cannot be read");
  return assignment_of(*plan, world.rank());
}

}  // namespace trireme::worker
