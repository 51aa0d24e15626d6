#pragma once
// What NVIDIA's management library knows beyond the CUDA runtime. It is opened at run time: a machine without
// it is no error, and programs do not link it. Source: NVML API Reference, nvml.h.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

namespace trireme::cuda {

/// Of one device at one moment; what the device does not tell is empty.
struct NvmlSample {
  std::optional<int> gpu_percent;     // of the last sample period in which a kernel ran
  std::optional<int> memory_percent;  // in which memory was read or written
  std::optional<double> power_watts;
  std::optional<int64_t> uncorrected_ecc_errors;  // since the driver was loaded
};

class Nvml {
 public:
  /// Null where the library is not there or does not start.
  static std::unique_ptr<Nvml> open(const char* library = "libnvidia-ml.so.1");
  ~Nvml();
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  /// E.g. "580.65.06"; empty where it is not told.
  std::string driver_version() const;
  /// Empty where no device has this PCI bus id, e.g. "0000:1b:00.0".
  std::optional<NvmlSample> sample(const std::string& pci_bus_id) const;

 private:
  struct Library;
  explicit Nvml(std::unique_ptr<Library> library);
  std::unique_ptr<Library> library_;
};

}  // namespace trireme::cuda
