#include "engine/parallel/collectives.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "engine/parallel/agreement.h"

namespace trireme {
namespace {

constexpr char kBetween = '\n';  // in no host's name

absl::StatusOr<std::vector<NcclRank>> parse(const std::vector<std::string>& texts) {
  std::vector<NcclRank> ranks;
  for (const std::string& text : texts) {
    const std::vector<std::string> parts = absl::StrSplit(text, kBetween);
    NcclRank rank;
    if (parts.size() != 3 || !absl::SimpleAtoi(parts[2], &rank.version))
      return absl::InternalError(absl::StrCat("rank ", ranks.size(), ": an unreadable description"));
    rank.host = parts[0];
    rank.device = parts[1];
    ranks.push_back(std::move(rank));
  }
  return ranks;
}

/// What one rank's device sums no other kind's can.
absl::Status agree_on_backend(HostGroup& host, const std::string& backend,
                              std::chrono::milliseconds deadline) {
  auto backends = share_bytes(host, backend, deadline);
  if (!backends.ok()) return backends.status();
  for (size_t rank = 1; rank < backends->size(); ++rank) {
    if ((*backends)[rank] == backends->front()) continue;
    return absl::FailedPreconditionError(absl::StrCat("collectives: rank 0 has backend ", backends->front(),
                                                      ", rank ", rank, " has ", (*backends)[rank],
                                                      ", wanted the same on all ranks"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> choose_collectives(const std::string& wish, const std::string& backend,
                                               bool has_nccl, bool shares_devices) {
  if (wish == "mpi") return wish;
  if (wish == "auto") return std::string(backend == "cuda" && has_nccl && !shares_devices ? "nccl" : "mpi");
  if (wish != "nccl")
    return absl::InvalidArgumentError(
        absl::StrCat("collectives: got '", wish, "', wanted auto, nccl or mpi"));
  if (backend != "cuda") {
    return absl::InvalidArgumentError(absl::StrCat(
        "collectives nccl: NCCL connects NVIDIA GPUs and the backend is ", backend, "; wanted auto or mpi"));
  }
  if (!has_nccl) {
    return absl::UnimplementedError(
        "collectives nccl: this build has no NCCL (TRIREME_NCCL); wanted auto or mpi");
  }
  if (shares_devices) {
    return absl::FailedPreconditionError(
        "collectives nccl: ranks share a GPU, and NCCL wants one for each; wanted auto or mpi");
  }
  return wish;
}

absl::StatusOr<std::unique_ptr<ProcessGroup>> create_process_group(const std::string& wish, HostGroup& host,
                                                                   Backend& backend, bool shares_device,
                                                                   std::chrono::milliseconds deadline) {
  const auto any_shares = agree_on_any(host, shares_device, deadline);
  if (!any_shares.ok()) return any_shares.status();
  auto chosen = choose_collectives(wish, backend.name(), has_nccl(), *any_shares);
  if (absl::Status all = agree_on_success(host, chosen.status(), deadline); !all.ok()) return all;
  if (host.size() == 1) return create_single_process_group();
  if (absl::Status same = agree_on_backend(host, backend.name(), deadline); !same.ok()) return same;
  if (*chosen == "nccl") return create_nccl_process_group(host, backend, deadline);
  auto group = create_mpi_process_group(host);
  if (backend.name() == "cpu") return group;
  return create_staged_process_group(std::move(group), backend);
}

std::string describe_all_reduce(const ProcessGroup& group) {
  constexpr int64_t kLeast = int64_t{1} << 10, kMost = int64_t{1} << 30;
  std::string text, last = group.all_reduce_algorithm(kLeast);
  for (int64_t bytes = 2 * kLeast; bytes <= kMost; bytes *= 2) {
    const std::string next = group.all_reduce_algorithm(bytes);
    if (next != last) absl::StrAppend(&text, last, " up to ", bytes / 2 / kLeast, " KiB, ");
    last = next;
  }
  return absl::StrCat(text, last, text.empty() ? "" : " above");
}

std::string nccl_version_text(int version) {
  return absl::StrCat(version / 10'000, ".", version / 100 % 100, ".", version % 100);
}

absl::Status check_nccl_ranks(const std::vector<NcclRank>& ranks) {
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    for (size_t other = 0; other < rank; ++other) {
      if (ranks[rank].host != ranks[other].host || ranks[rank].device != ranks[other].device) continue;
      return absl::FailedPreconditionError(absl::StrCat(
          "NCCL: ranks ", other, " and ", rank, " are both on GPU ", ranks[rank].device, " of host ",
          ranks[rank].host, ", wanted one GPU for each rank (--collectives mpi lets ranks share one)"));
    }
    if (ranks[rank].version != ranks[0].version) {
      return absl::FailedPreconditionError(
          absl::StrCat("NCCL: rank ", rank, " on host ", ranks[rank].host, " has version ",
                       nccl_version_text(ranks[rank].version), ", rank 0 on host ", ranks[0].host, " has ",
                       nccl_version_text(ranks[0].version), ", wanted the same library on every host"));
    }
  }
  return absl::OkStatus();
}

absl::Status agree_on_nccl(HostGroup& host, const NcclRank& mine, std::chrono::milliseconds deadline) {
  const auto texts = host.gather(
      absl::StrCat(mine.host, std::string(1, kBetween), mine.device, std::string(1, kBetween), mine.version),
      0, deadline);
  absl::Status verdict = texts.status();
  if (texts.ok() && host.rank() == 0) {
    auto ranks = parse(*texts);
    verdict = ranks.ok() ? check_nccl_ranks(*ranks) : ranks.status();
  }
  return agree_on_success(host, verdict, deadline);
}

}  // namespace trireme
