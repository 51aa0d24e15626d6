#pragma once
// Which device a rank computes on.

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace trireme {

struct BackendWish {
  std::string backend = "auto";  // auto, cpu, cuda
  int device = 0;                // which GPU of those that the process sees
  int num_threads = 0;           // of the CPU backend; 0: all that the process may use
  DType compute_dtype =
      DType::f32;  // what weights and activations are to be held as, where a device has the choice
};

/// cuda: the GPU, or the reason why it cannot be used, as judge_device() of kernels/cuda/device_facts.h gives
/// it. auto: the GPU if it can be used, else the CPU, with the reason in `notes`. INVALID_ARGUMENT for any
/// other word.
absl::StatusOr<std::unique_ptr<Backend>> choose_backend(const BackendWish& wish,
                                                        std::vector<std::string>& notes);

/// Whether ranks of one host take their memory from the same place: they do but for a device that each has
/// alone.
bool shares_host_memory(const Backend& backend);

}  // namespace trireme
