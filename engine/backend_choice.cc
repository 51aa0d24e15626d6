#include "engine/backend_choice.h"

#include <limits.h>
#include <unistd.h>

#include <array>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "engine/parallel/agreement.h"
#include "kernels/peer_access.h"

namespace trireme {
namespace {

/// Where there is no GPU to be placed on, opening one tells why.
absl::StatusOr<DevicePlacement> place(const BackendWish& wish) {
  if (wish.placement) return *wish.placement;
  const int num_devices = num_cuda_devices();
  if (wish.device >= num_devices) return DevicePlacement{wish.device, 1};
  return place_on_device(wish.device, wish.local_rank, wish.local_ranks, num_devices,
                         /*may_share=*/wish.collectives != "nccl");
}

absl::StatusOr<ChosenBackend> open_gpu(const BackendWish& wish, const DevicePlacement& placement,
                                       std::vector<std::string>& notes) {
  CudaOptions options;
  options.device = placement.device;
  options.activation_dtype = wish.compute_dtype;
  options.notes = &notes;
  auto cuda = create_cuda_backend(options);
  if (!cuda.ok()) return cuda.status();
  if (placement.num_sharers > 1) {
    notes.push_back(absl::StrCat("GPU ", placement.device, " is shared by ", placement.num_sharers,
                                 " of the ", wish.local_ranks,
                                 " ranks on this host: each counts on its part of the free memory, and waits "
                                 "for the others' kernels"));
  }
  return ChosenBackend{*std::move(cuda), placement};
}

}  // namespace

absl::StatusOr<ChosenBackend> choose_backend(const BackendWish& wish, std::vector<std::string>& notes) {
  if (wish.backend != "auto" && wish.backend != "cpu" && wish.backend != "cuda") {
    return absl::InvalidArgumentError(
        absl::StrCat("backend: got '", wish.backend, "', wanted auto, cpu or cuda"));
  }
  if (wish.backend != "cpu") {
    const auto placement = place(wish);
    if (!placement.ok()) return placement.status();  // whoever asks for NCCL asks for GPUs
    auto cuda = open_gpu(wish, *placement, notes);
    if (cuda.ok()) return cuda;
    if (wish.backend == "cuda")
      return absl::Status(cuda.status().code(), absl::StrCat("--backend cuda: ", cuda.status().message()));
    notes.push_back(absl::StrCat("backend auto: the CPU, since ", cuda.status().message()));
  }
  CpuOptions options;
  options.num_threads = wish.num_threads;
  auto cpu = create_cpu_backend(options);
  if (!cpu.ok()) return cpu.status();
  return ChosenBackend{*std::move(cpu), {}};
}

absl::StatusOr<std::optional<DevicePlacement>> agree_on_placement(HostGroup& world,
                                                                  const std::string& backend,
                                                                  const std::string& collectives, int first,
                                                                  std::chrono::milliseconds deadline) {
  constexpr char kBetween = '\n';  // in no host's name
  std::array<char, HOST_NAME_MAX + 1> host{};
  gethostname(host.data(), host.size() - 1);
  std::vector<std::string> parts{host.data()};
  const int num_devices = backend == "cpu" ? 0 : num_cuda_devices();
  for (int device = 0; device < num_devices; ++device) parts.push_back(gpu_address(device).value_or(""));
  const auto texts = share_bytes(world, absl::StrJoin(parts, std::string(1, kBetween)), deadline);
  if (!texts.ok()) return texts.status();
  std::vector<RankSight> ranks;
  for (const std::string& text : *texts) {
    std::vector<std::string> gpus = absl::StrSplit(text, kBetween);
    RankSight sight{gpus.front(), {}};
    gpus.erase(gpus.begin());
    sight.gpus = std::move(gpus);
    ranks.push_back(std::move(sight));
  }
  return place_by_sight(first, ranks, world.rank(), /*may_share=*/collectives != "nccl");
}

bool shares_host_memory(const Backend& backend) { return backend.name() == "cpu"; }

}  // namespace trireme
