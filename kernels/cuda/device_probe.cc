#include "kernels/cuda/device_probe.h"

#include <cuda_runtime.h>

#include <array>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/cuda/nvml.h"

namespace trireme::cuda {
namespace {

OpenResult result_of(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return OpenResult::open;
    case cudaErrorInsufficientDriver:
      return OpenResult::driver_too_old;
    case cudaErrorNoDevice:
      return OpenResult::no_device;
    case cudaErrorSystemNotReady:
      return OpenResult::not_ready;
    case cudaErrorDevicesUnavailable:
    case cudaErrorDeviceAlreadyInUse:
      return OpenResult::busy;
    case cudaErrorECCUncorrectable:
    case cudaErrorHardwareStackError:
    case cudaErrorNvlinkUncorrectable:
      return OpenResult::broken;
    default:
      return OpenResult::failed;
  }
}

/// Notes the first error of a probe.
void note_error(cudaError_t error, DeviceFacts& facts) {
  if (error == cudaSuccess || facts.opened != OpenResult::open) return;
  cudaGetLastError();  // so that nobody else finds it
  facts.opened = result_of(error);
  facts.error = absl::StrCat(cudaGetErrorString(error), " (", cudaGetErrorName(error), ")");
}

int attribute(cudaDeviceAttr which, int ordinal) {
  int value = 0;
  return cudaDeviceGetAttribute(&value, which, ordinal) == cudaSuccess ? value : 0;
}

void describe(DeviceFacts& facts) {
  const int ordinal = facts.ordinal;
  cudaDeviceProp properties{};
  note_error(cudaGetDeviceProperties(&properties, ordinal), facts);
  facts.name = properties.name;
  facts.major = properties.major;
  facts.minor = properties.minor;
  facts.total_bytes = static_cast<int64_t>(properties.totalGlobalMem);
  facts.num_multiprocessors = properties.multiProcessorCount;
  facts.max_shared_bytes = static_cast<int64_t>(properties.sharedMemPerBlockOptin);
  const int mode = attribute(cudaDevAttrComputeMode, ordinal);
  facts.exclusive = mode == cudaComputeModeExclusive || mode == cudaComputeModeExclusiveProcess;
  facts.prohibited = mode == cudaComputeModeProhibited;
  if (const auto nvml = Nvml::open()) {
    const auto sample = nvml->sample(pci_bus_id(ordinal));
    if (sample) facts.uncorrected_ecc_errors = sample->uncorrected_ecc_errors.value_or(-1);
  }
}

/// Makes the context.
void open(DeviceFacts& facts) {
  note_error(cudaSetDevice(facts.ordinal), facts);
  if (facts.opened != OpenResult::open) return;
  size_t free_bytes = 0, total_bytes = 0;
  note_error(cudaMemGetInfo(&free_bytes, &total_bytes), facts);
  facts.free_bytes = static_cast<int64_t>(free_bytes);
}

}  // namespace

int num_visible_devices() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  cudaGetLastError();
  return 0;
}

DeviceFacts probe_device(int ordinal) {
  DeviceFacts facts;
  facts.ordinal = ordinal;
  // Both answer without a driver, with 0 for its version.
  cudaDriverGetVersion(&facts.driver_version);
  cudaRuntimeGetVersion(&facts.runtime_version);
  if (const char* visible = std::getenv("CUDA_VISIBLE_DEVICES")) facts.visible_devices = visible;
  note_error(cudaGetDeviceCount(&facts.num_devices), facts);
  if (facts.opened != OpenResult::open || ordinal < 0 || ordinal >= facts.num_devices) return facts;
  describe(facts);
  if (facts.opened == OpenResult::open && !facts.prohibited) open(facts);
  return facts;
}

std::string pci_bus_id(int ordinal) {
  std::array<char, 32> text = {};
  return cudaDeviceGetPCIBusId(text.data(), text.size(), ordinal) == cudaSuccess ? text.data() : "";
}

const std::vector<BuildArchitecture>& build_architectures() {
  static const auto* build = [] {
    auto parsed = parse_architectures(TRIREME_CUDA_ARCHITECTURES);
    TRIREME_CHECK(parsed.ok());
    return new std::vector<BuildArchitecture>(*std::move(parsed));
  }();
  return *build;
}

absl::StatusOr<DeviceFacts> open_device(int ordinal, std::vector<std::string>& notes) {
  DeviceFacts facts = probe_device(ordinal);
  auto judged = judge_device(facts, build_architectures());
  if (!judged.ok()) return judged.status();
  notes.insert(notes.end(), judged->begin(), judged->end());
  return facts;
}

}  // namespace trireme::cuda
