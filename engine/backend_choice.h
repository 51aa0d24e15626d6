#pragma once
// Which device a rank computes on.

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/device_placement.h"
#include "engine/parallel/process_group.h"
#include "kernels/backend.h"

namespace trireme {

struct BackendWish {
  std::string backend = "auto";  // auto, cpu, cuda
  int device = 0;                // GPU of the host's first rank, of those that the process sees
  int num_threads = 0;           // of the CPU backend; 0: all that the process may use
  DType compute_dtype =
      DType::f32;  // what weights and activations are to be held as, where a device has the choice
  int local_rank = 0, local_ranks = 1;            // this rank among those of its job on this host
  std::string collectives = "auto";               // with nccl no two ranks can share a GPU
  std::optional<DevicePlacement> placement = {};  // where it is known
};

struct ChosenBackend {
  std::unique_ptr<Backend> backend;
  DevicePlacement placement;  // of the CPU: nobody's
};

/// cuda: the GPU, or the reason why it cannot be used, as judge_device() of kernels/cuda/device_facts.h gives
/// it. auto: the GPU if it can be used, else the CPU, with the reason in `notes`. Ranks share GPUs where
/// there are fewer, as place_on_device() says, and `notes` then say so. INVALID_ARGUMENT for any other word.
absl::StatusOr<ChosenBackend> choose_backend(const BackendWish& wish, std::vector<std::string>& notes);

/// place_by_sight() of the ranks of `world`, none of which opens a GPU for it; nullopt on the CPU. `first`:
/// of the GPUs that a rank sees. Collective.
absl::StatusOr<std::optional<DevicePlacement>> agree_on_placement(HostGroup& world,
                                                                  const std::string& backend,
                                                                  const std::string& collectives, int first,
                                                                  std::chrono::milliseconds deadline);

/// Whether ranks of one host take their memory from the same place: they do but for a device that each has
/// alone.
bool shares_host_memory(const Backend& backend);

}  // namespace trireme
