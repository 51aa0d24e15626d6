// trireme bench collectives: the sums and messages of a tensor-parallel group alone, under mpirun.

#include <cstdio>
#include <fstream>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/backend_choice.h"
#include "engine/parallel/agreement.h"
#include "engine/parallel/collectives.h"
#include "launch/client/collective_report.h"
#include "launch/client/commands.h"

namespace trireme::client {
namespace {

constexpr std::chrono::minutes kDeadline{1};

struct Flags {
  std::vector<std::string> operations = {"all_reduce"};
  std::string sizes = "4KiB:64MiB:x2", json_path;
  std::string backend = "auto", collectives = "auto";
  CollectiveBenchOptions bench;
};

int fail(const absl::Status& status, const HostGroup* world) {
  if (world == nullptr || world->rank() == 0)
    std::fprintf(stderr, "trireme bench collectives: %s\n", std::string(status.message()).c_str());
  return status.code() == absl::StatusCode::kInvalidArgument ? kExitInvalid : kExitFailed;
}

/// What the flags say, and a place for the report: better known before the measurement than after.
absl::Status complete(Flags& flags, int rank, std::ofstream& json_file) {
  flags.bench.operations.clear();
  for (const std::string& name : flags.operations)
    flags.bench.operations.push_back(*parse_collective(name));  // the parser of flags lets no other through
  auto sizes = parse_sizes(flags.sizes);
  if (!sizes.ok()) return sizes.status();
  flags.bench.sizes = *std::move(sizes);
  if (rank == 0 && !flags.json_path.empty()) {
    json_file.open(flags.json_path);
    if (!json_file) return absl::InvalidArgumentError(absl::StrCat("--json: cannot write ", flags.json_path));
  }
  return absl::OkStatus();
}

int run(Flags& flags) {
  auto opened = create_world(nullptr, nullptr);
  if (!opened.ok()) return fail(opened.status(), nullptr);
  HostGroup& world = **opened;
  std::ofstream json_file;
  absl::Status ready = complete(flags, world.rank(), json_file);
  std::vector<std::string> notes;
  auto chosen = choose_backend({flags.backend, /*device=*/0, /*num_threads=*/1, DType::f32,
                                world.local_rank(), world.local_size(), flags.collectives},
                               notes);
  ready.Update(chosen.status());
  if (absl::Status all = agree_on_success(world, ready, kDeadline); !all.ok()) return fail(all, &world);
  Backend& backend = *chosen->backend;
  const bool shares_device = chosen->placement.num_sharers > 1;
  const auto group = create_process_group(flags.collectives, world, backend, shares_device, kDeadline);
  if (!group.ok()) return fail(group.status(), &world);
  auto report = run_collective_bench(flags.bench, world, **group, backend);
  if (!report.ok()) return fail(report.status(), &world);
  if (world.rank() != 0) return kExitOk;
  std::printf("%s", to_text(*report).c_str());
  if (json_file.is_open()) {
    json_file << to_json(*report).dump(2) << '\n';
    json_file.close();
    if (!json_file)
      return fail(absl::DataLossError(absl::StrCat("--json: cannot write ", flags.json_path)), &world);
  }
  return report->all_right() ? kExitOk : kExitFailed;
}

}  // namespace

void add_collective_bench_command(CLI::App& bench, int& exit_code) {
  CLI::App* command = bench.add_subcommand("collectives",
                                           "The collectives of a tensor-parallel group alone, in the manner "
                                           "of nccl-tests: mpirun -np N trireme bench "
                                           "collectives. Each size is timed, then verified on fresh inputs; "
                                           "time as a function of size is fitted.");
  command->footer(kCollectiveJsonHelp);
  auto flags = std::make_shared<Flags>();
  CollectiveBenchOptions& options = flags->bench;
  command->add_option("--op", flags->operations, "all_reduce, gather, broadcast, or several with commas")
      ->delimiter(',')
      ->check(CLI::IsMember({"all_reduce", "gather", "broadcast"}))
      ->capture_default_str();
  command
      ->add_option("--backend", flags->backend,
                   "whose memory the messages are in: a host's ranks take its GPUs in turn")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  command->add_option("--collectives", flags->collectives, "auto: nccl where each rank has a GPU, else mpi")
      ->check(CLI::IsMember({"auto", "nccl", "mpi"}))
      ->capture_default_str();
  command->add_option("--sizes", flags->sizes, "of the message: SIZE or FROM:TO:xFACTOR, several with commas")
      ->capture_default_str();
  command->add_option("--iterations", options.iterations, "calls of one sample; fewer where they are slow")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command->add_option("--warmup", options.warmup, "calls before the first sample of a size")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command->add_option("--samples", options.samples, "of which the median is told")
      ->check(CLI::Range(1, 10'000))
      ->capture_default_str();
  command->add_option("--seed", options.seed, "of the verified inputs; 0: drawn")->capture_default_str();
  command->add_option("--json", flags->json_path, "write the report to this file");
  command->callback([flags, &exit_code] { exit_code = run(*flags); });
}

}  // namespace trireme::client
