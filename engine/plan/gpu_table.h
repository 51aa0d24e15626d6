#pragma once
// Devices by name: published figures, one row each.

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace trireme {

/// Peaks without sparsity. 0: not known, or the device has no such thing.
struct GpuSpec {
  std::string name, architecture, source;
  std::string compute_capability;  // "9.0"; "gfx942" for what is not CUDA's
  double memory_gib = 0;
  double memory_gb_s = 0;  // 1e9 bytes per second
  double f16_tflops = 0, bf16_tflops = 0, fp8_tflops = 0, int8_tops = 0, f32_tflops = 0;
  double nvlink_gb_s = 0;  // per direction; 0: PCIe alone
  int pcie_generation = 0;
  int num_multiprocessors = 0;
  double ecc_reserved_fraction = 0;  // of the memory, where ECC keeps its bits in it
  double usd_per_hour = 0;
  int price_year = 0;

  /// What processes can have of the memory: less ECC's share and 2 % for the driver.
  int64_t usable_bytes() const;
};

class GpuTable {
 public:
  /// Adds the rows of a CSV table; a row of a known name replaces it. INVALID_ARGUMENT naming line and
  /// column.
  absl::Status add(std::string_view csv, const std::string& where);
  /// Case, '-', '_' and spaces aside. NOT_FOUND with the nearest names.
  absl::StatusOr<GpuSpec> find(std::string_view name) const;
  const std::vector<GpuSpec>& gpus() const { return gpus_; }

 private:
  std::vector<GpuSpec> gpus_;
};

/// The least of each figure: what a group waits for.
GpuSpec weakest_of(const GpuSpec& a, const GpuSpec& b);

struct InventoryHost {
  std::string host;
  GpuSpec gpu;
  int devices = 0;
};
/// CSV with the columns host, gpu, devices. INVALID_ARGUMENT or NOT_FOUND naming line and column.
absl::StatusOr<std::vector<InventoryHost>> parse_inventory(std::string_view csv, const std::string& where,
                                                           const GpuTable& gpus);

}  // namespace trireme
