#pragma once
// GPUs of one host that read each other's memory, for those who look at a machine before they use it.

#include <string>

#include "absl/status/statusor.h"

namespace trireme {

/// Address on the host's PCI bus of a GPU, `device` being its number among those this process sees, e.g.
/// "0000:1b:00.0". UNIMPLEMENTED in a build without CUDA, NOT_FOUND where there is no such device.
absl::StatusOr<std::string> gpu_address(int device);

/// Whether `device` can read and write the memory of the GPU at `peer_address` directly, over NVLink or PCIe.
/// UNIMPLEMENTED in a build without CUDA, NOT_FOUND where this process does not see that GPU.
absl::StatusOr<bool> can_access_peer(int device, const std::string& peer_address);

}  // namespace trireme
