#pragma once
// Asks driver, runtime and NVML what a device is.

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/cuda/device_facts.h"

namespace trireme::cuda {

/// GPUs that this process may see; 0 where there is no driver.
int num_visible_devices();

/// Opens device `ordinal` (which makes a context on it, and takes some 100 ms the first time) and tells what
/// it found; never fails.
DeviceFacts probe_device(int ordinal);

/// E.g. "0000:1b:00.0", as NVML wants it; empty where there is no such device.
std::string pci_bus_id(int ordinal);

/// What this build has code for.
const std::vector<BuildArchitecture>& build_architectures();

/// Makes `ordinal` this thread's device, with its facts, and the notes of judge_device() in `notes`. Errors
/// are those of judge_device().
absl::StatusOr<DeviceFacts> open_device(int ordinal, std::vector<std::string>& notes);

}  // namespace trireme::cuda
