#include "kernels/cuda/nvml.h"

#include <dlfcn.h>

#include <array>

namespace trireme::cuda {
namespace {

// The parts of nvml.h that are used here.
using Device = void*;
struct Utilization {
  unsigned gpu, memory;
};
constexpr int kSuccess = 0, kUncorrected = 1, kVolatile = 0;

template <typename Function>
bool find(void* library, const char* name, Function*& function) {
  function = reinterpret_cast<Function*>(dlsym(library, name));
  return function != nullptr;
}

}  // namespace

struct Nvml::Library {
  void* handle = nullptr;
  bool started = false;
  int (*init)() = nullptr;
  int (*shutdown)() = nullptr;
  int (*device_by_bus_id)(const char*, Device*) = nullptr;
  int (*system_driver_version)(char*, unsigned) = nullptr;
  int (*utilization)(Device, Utilization*) = nullptr;
  int (*power_milliwatts)(Device, unsigned*) = nullptr;
  int (*total_ecc_errors)(Device, int, int, unsigned long long*) = nullptr;

  /// All of these are as old as the drivers that CUDA 11 needs.
  bool find_functions() {
    return find(handle, "nvmlInit_v2", init) && find(handle, "nvmlShutdown", shutdown) &&
           find(handle, "nvmlDeviceGetHandleByPciBusId_v2", device_by_bus_id) &&
           find(handle, "nvmlSystemGetDriverVersion", system_driver_version) &&
           find(handle, "nvmlDeviceGetUtilizationRates", utilization) &&
           find(handle, "nvmlDeviceGetPowerUsage", power_milliwatts) &&
           find(handle, "nvmlDeviceGetTotalEccErrors", total_ecc_errors);
  }
  ~Library() {
    if (started) shutdown();
    if (handle != nullptr) dlclose(handle);
  }
};

Nvml::Nvml(std::unique_ptr<Library> library) : library_(std::move(library)) {}
Nvml::~Nvml() = default;

std::unique_ptr<Nvml> Nvml::open(const char* library) {
  auto opened = std::make_unique<Library>();
  opened->handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  if (opened->handle == nullptr || !opened->find_functions()) return nullptr;
  opened->started = opened->init() == kSuccess;
  if (!opened->started) return nullptr;
  return std::unique_ptr<Nvml>(new Nvml(std::move(opened)));
}

std::string Nvml::driver_version() const {
  std::array<char, 96> text = {};
  const bool known = library_->system_driver_version(text.data(), text.size() - 1) == kSuccess;
  return known ? text.data() : "";
}

std::optional<NvmlSample> Nvml::sample(const std::string& pci_bus_id) const {
  Device device = nullptr;
  if (library_->device_by_bus_id(pci_bus_id.c_str(), &device) != kSuccess) return std::nullopt;
  NvmlSample sample;
  if (Utilization used{}; library_->utilization(device, &used) == kSuccess) {
    sample.gpu_percent = static_cast<int>(used.gpu);
    sample.memory_percent = static_cast<int>(used.memory);
  }
  if (unsigned milliwatts = 0; library_->power_milliwatts(device, &milliwatts) == kSuccess)
    sample.power_watts = milliwatts * 1e-3;
  unsigned long long errors = 0;
  if (library_->total_ecc_errors(device, kUncorrected, kVolatile, &errors) == kSuccess)
    sample.uncorrected_ecc_errors = static_cast<int64_t>(errors);
  return sample;
}

}  // namespace trireme::cuda
