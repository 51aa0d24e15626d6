#include "kernels/peer_access.h"

#include <cuda_runtime.h>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/device_probe.h"

namespace trireme {

absl::StatusOr<std::string> gpu_address(int device) {
  std::string address = cuda::pci_bus_id(device);
  if (address.empty()) return absl::NotFoundError(absl::StrCat("GPU ", device, ": there is none"));
  return address;
}

absl::StatusOr<bool> can_access_peer(int device, const std::string& peer_address) {
  int peer = 0, can = 0;
  if (cudaDeviceGetByPCIBusId(&peer, peer_address.c_str()) != cudaSuccess) {
    cudaGetLastError();  // so that nobody else finds it
    return absl::NotFoundError(absl::StrCat("GPU ", peer_address, ": not visible to this process"));
  }
  if (peer == device) return true;
  const cudaError_t error = cudaDeviceCanAccessPeer(&can, device, peer);
  if (error == cudaSuccess) return can != 0;
  cudaGetLastError();
  return absl::UnavailableError(
      absl::StrCat("GPU ", device, " to GPU ", peer_address, ": ", cudaGetErrorString(error)));
}

}  // namespace trireme
