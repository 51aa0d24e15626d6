// trireme doctor: whether the ranks of a job can work together, told before anything large is loaded.

#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/parallel/process_group.h"
#include "launch/client/commands.h"
#include "launch/client/doctor_checks.h"
#include "launch/client/doctor_devices.h"
#include "launch/client/doctor_facts.h"
#include "launch/client/doctor_probe.h"
#include "launch/client/message_json.h"

namespace trireme::client {
namespace {

constexpr std::chrono::milliseconds kDeadline{120'000};

struct Flags {
  std::string model_dir, network, backend = "auto";
  int timeout_s = 120;
  bool json = false;
};

char the_late_message[512];

/// Sums wait for their peers for ever; nothing else here does.
void limit_time(const v1::RankFacts& facts, int seconds) {
  std::snprintf(
      the_late_message, sizeof(the_late_message),
      "trireme doctor: rank %d on host %s: not done after %d s: a rank that waits for others names them, "
      "one that says nothing is at fault\n",
      facts.rank(), facts.host().c_str(), seconds);
  std::signal(SIGALRM, [](int) {
    if (::write(STDERR_FILENO, the_late_message, std::strlen(the_late_message)) < 0) ::_exit(2);
    ::_exit(kExitFailed);
  });
  ::alarm(static_cast<unsigned>(seconds));
}

/// Reports of all ranks become one, on rank 0.
absl::StatusOr<v1::DoctorReport> merge(const std::vector<std::string>& texts,
                                       const std::vector<PairResult>& of_rank_0,
                                       const std::vector<ClockOffset>& timelines) {
  v1::DoctorReport report;
  for (size_t rank = 0; rank < texts.size(); ++rank) {
    v1::DoctorReport one;
    if (!one.ParseFromString(texts[rank]) || one.ranks_size() != 1)
      return absl::InternalError(absl::StrCat("rank ", rank, ": its report cannot be read"));
    one.mutable_ranks(0)->set_timeline_offset_s(static_cast<double>(timelines.at(rank).offset_ns) * 1e-9);
    one.mutable_ranks(0)->set_timeline_error_s(static_cast<double>(timelines.at(rank).error_ns) * 1e-9);
    if (rank > 0) {  // what all know alike
      one.clear_backend();
      one.clear_devices_skipped();
      one.clear_device_collectives();
      one.clear_device_error();
    }
    report.MergeFrom(one);
  }
  for (v1::LinkFact& link : *report.mutable_links()) {
    if (link.rank() < 0 || link.rank() >= report.ranks_size() || link.peer() < 0 ||
        link.peer() >= report.ranks_size())
      return absl::InternalError("a link between ranks that do not exist");
    link.set_across_hosts(report.ranks(link.rank()).host() != report.ranks(link.peer()).host());
  }
  for (const PairResult& pair : of_rank_0) {
    report.mutable_ranks(pair.link.peer())->set_clock_offset_s(pair.clock_offset_s);
    report.mutable_ranks(pair.link.peer())->set_clock_error_s(pair.clock_error_s);
  }
  return report;
}

void print_links(const v1::DoctorReport& report) {
  for (const bool across : {false, true}) {
    int count = 0;
    const v1::LinkFact *slowest = nullptr, *farthest = nullptr;
    for (const v1::LinkFact& link : report.links()) {
      if (link.across_hosts() != across) continue;
      ++count;
      if (slowest == nullptr || link.gb_s() < slowest->gb_s()) slowest = &link;
      if (farthest == nullptr || link.round_trip_us() > farthest->round_trip_us()) farthest = &link;
    }
    if (count == 0) continue;
    std::printf(
        "%d links %s: slowest %.3f GB/s (ranks %d and %d), longest round trip %.1f us (ranks %d and %d)\n",
        count, across ? "between hosts" : "within a host", slowest->gb_s(), slowest->rank(), slowest->peer(),
        farthest->round_trip_us(), farthest->rank(), farthest->peer());
  }
}

std::string timeline_text(const v1::RankFacts& rank) {
  if (rank.timeline_error_s() == 0) return "timelines by one clock";
  return absl::StrFormat("timelines +- %.1f us", rank.timeline_error_s() * 1e6);
}

void print_devices(const v1::DoctorReport& report) {
  if (!report.devices_skipped().empty())
    std::printf("GPUs, their peer access and NCCL: skipped (%s)\n", report.devices_skipped().c_str());
  int direct = 0, apart = 0;
  for (const v1::RankFacts& rank : report.ranks()) {
    if (rank.device().description().empty()) continue;
    std::printf("rank %d on host %s: %s\n", rank.rank(), rank.host().c_str(),
                rank.device().description().c_str());
    direct += rank.device().peers_size();
    apart += rank.device().apart_size();
  }
  if (direct + apart > 0)
    std::printf("peer access between GPUs of a host: %d of %d directions\n", direct, direct + apart);
  if (!report.device_collectives().empty())
    std::printf("sums on GPUs: %s\n", report.device_collectives().c_str());
}

void print(const v1::DoctorReport& report) {
  int problems = 0, gpus = 0;
  for (const v1::RankFacts& rank : report.ranks()) {
    std::string interfaces;
    for (const v1::InterfaceFact& one : rank.interfaces())
      absl::StrAppend(&interfaces, "  ", one.name(), " ", one.address());
    std::printf("rank %d on host %s: %d of %d processors, %lld MiB free, %s, clock %+.6f s +- %.6f, %s%s\n",
                rank.rank(), rank.host().c_str(), rank.cpus_size(), rank.host_cpus(),
                static_cast<long long>(rank.available_memory_bytes() >> 20), rank.isa().c_str(),
                rank.clock_offset_s(), rank.clock_error_s(), timeline_text(rank).c_str(), interfaces.c_str());
    gpus += rank.gpus_size();
  }
  print_links(report);
  if (gpus == 0) std::printf("no GPU on any host\n");
  print_devices(report);
  for (const v1::Finding& finding : report.findings()) {
    problems += finding.problem() ? 1 : 0;
    std::printf("%s: rank %d on host %s: %s: %s\n  to do: %s\n", finding.problem() ? "PROBLEM" : "warning",
                finding.rank(), finding.host().c_str(), finding.check().c_str(), finding.message().c_str(),
                finding.advice().c_str());
  }
  std::printf("trireme doctor: %d ranks, %d problems, %d warnings\n", report.ranks_size(), problems,
              report.findings_size() - problems);
}

absl::StatusOr<v1::DoctorReport> examine(const Flags& flags, HostGroup& world, v1::RankFacts facts) {
  if (absl::Status met = world.barrier(kDeadline); !met.ok()) return met;
  if (absl::Status status = probe_connections(world, flags.network, facts); !status.ok()) return status;
  std::vector<PairResult> pairs;
  if (absl::Status status = probe_pairs(world, pairs); !status.ok()) return status;
  const auto timelines = probe_timeline_clocks(world);
  if (!timelines.ok()) return timelines.status();
  probe_sums(world, facts);
  v1::DoctorReport own;
  if (absl::Status status = probe_devices(world, flags.backend, facts, own); !status.ok()) return status;
  *own.add_ranks() = std::move(facts);
  for (const PairResult& pair : pairs) *own.add_links() = pair.link;
  const auto texts = world.gather(own.SerializeAsString(), 0, kDeadline);
  if (!texts.ok()) return texts.status();
  if (world.rank() != 0) return v1::DoctorReport();
  auto report = merge(*texts, pairs, *timelines);
  if (report.ok()) judge(flags.network, *report);
  return report;
}

int run(const Flags& flags) {
  auto world = create_world(nullptr, nullptr);
  if (!world.ok()) {
    std::fprintf(stderr, "trireme doctor: %s\n", std::string(world.status().message()).c_str());
    return kExitFailed;
  }
  v1::RankFacts facts = gather_facts((*world)->rank(), flags.model_dir);
  limit_time(facts, flags.timeout_s);
  const std::string host = facts.host();
  const auto report = examine(flags, **world, std::move(facts));
  if (!report.ok()) {
    std::fprintf(stderr, "trireme doctor: rank %d on host %s: %s\n", (*world)->rank(), host.c_str(),
                 std::string(report.status().message()).c_str());
    std::fflush(nullptr);
    ::_exit(kExitFailed);  // peers may be gone: MPI cannot be ended in order
  }
  ::alarm(0);
  if ((*world)->rank() != 0) return kExitOk;
  if (flags.json) {
    std::printf("%s\n",
                message_json(*report).dump(2, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
  } else {
    print(*report);
  }
  std::fflush(stdout);
  const bool well = std::none_of(report->findings().begin(), report->findings().end(),
                                 [](const v1::Finding& finding) { return finding.problem(); });
  return well ? kExitOk : kExitFailed;
}

}  // namespace

void add_doctor_command(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand(
      "doctor",
      "Whether the ranks of a job can work together: under mpirun, as the workers would be started, before "
      "anything is loaded. Compares programs, versions and the model's files (sizes and safetensors "
      "headers), looks at processors, interfaces, /dev/shm and limits, measures clocks and links, and checks "
      "sums; where there are GPUs, their peer access, and sums over NCCL in their memory, too. Names rank "
      "and "
      "host at fault. Exit code 0: no problem; 1: problems.");
  auto flags = std::make_shared<Flags>();
  command->add_option("--model", flags->model_dir, "Hugging Face directory")->required();
  command->add_option("--network", flags->network, "CIDR or interface that is to connect the hosts");
  command
      ->add_option(
          "--backend", flags->backend,
          "cuda: each rank must have a GPU; cpu: those are left alone; auto: looked at where there are")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  command->add_option("--timeout", flags->timeout_s, "seconds for all of it")
      ->check(CLI::Range(1, 3600))
      ->capture_default_str();
  command->add_flag("--json", flags->json, "facts of every rank, links and findings");
  command->callback([flags, &exit_code] { exit_code = run(*flags); });
}

}  // namespace trireme::client
