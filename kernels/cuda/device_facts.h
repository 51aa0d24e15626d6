#pragma once
// What is known of a GPU and of this build, and whether they go together. Pure: the facts come from
// device_probe.h.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace trireme::cuda {

/// One entry of CMAKE_CUDA_ARCHITECTURES, e.g. 90a-real.
struct BuildArchitecture {
  int number = 0;  // 90: compute capability 9.0
  char suffix =
      0;  // 'a': runs on this very architecture alone; 'f': on its major version's; 0: and newer ones
  bool machine_code = false;
  bool ptx = false;  // which a driver can translate for newer devices
};

/// INVALID_ARGUMENT naming the entry that is none. Entries are separated by semicolons or commas.
absl::StatusOr<std::vector<BuildArchitecture>> parse_architectures(const std::string& list);

/// What opening a device ended with.
enum class OpenResult {
  open,
  driver_too_old,
  no_device,
  not_ready,  // the system's driver has not finished starting: on machines with NVSwitch its fabric manager
  busy,
  broken,
  failed
};

/// What driver, runtime and NVML say of one device. Versions are 1000 * major + 10 * minor.
struct DeviceFacts {
  int driver_version = 0;       // newest CUDA that the driver knows; 0: there is no driver
  int runtime_version = 0;      // CUDA of this build
  int num_devices = 0;          // that the process may see
  int ordinal = 0;              // which of them is asked for
  std::string visible_devices;  // CUDA_VISIBLE_DEVICES, empty where it is not set
  OpenResult opened = OpenResult::open;
  std::string error;  // the runtime's words, where it is not open

  // Of a device that exists:
  std::string name;
  int major = 0, minor = 0;  // compute capability
  bool exclusive = false;    // compute mode: one process at a time
  bool prohibited = false;   // compute mode: none
  int64_t total_bytes = 0;
  int64_t free_bytes = 0;  // of an open one
  int num_multiprocessors = 0;
  int64_t max_shared_bytes = 0;         // that a block may ask for
  int64_t uncorrected_ecc_errors = -1;  // since the driver was loaded; -1: not known
};

/// The least compute capability the kernels are written for: asynchronous copies and bf16 tensor cores.
inline constexpr int kLeastMajor = 8;

/// OK with sentences that the user should know of, or why the device cannot be used, with what to do about
/// it: FAILED_PRECONDITION where driver, device and build do not go together, UNAVAILABLE where the device is
/// busy or the driver not ready, INTERNAL where one is broken.
absl::StatusOr<std::vector<std::string>> judge_device(const DeviceFacts& facts,
                                                      const std::vector<BuildArchitecture>& build);

/// For people: name, compute capability, multiprocessors, memory.
std::string describe_device(const DeviceFacts& facts);

}  // namespace trireme::cuda
