#include "engine/plan/gpu_table.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/plan/csv_table.h"
#include "engine/plan/nearest_name.h"

namespace trireme {
namespace {

constexpr double kDriverFraction = 0.02;
constexpr double kMaxFigure = 1e9;

GpuSpec read_gpu(CsvRow& row) {
  const auto figure = [&](const char* column) { return row.number(column, 0, kMaxFigure, 0.0); };
  GpuSpec gpu;
  gpu.name = row.name("name");
  gpu.architecture = row.text("architecture");
  gpu.compute_capability = row.text("compute_capability");
  gpu.source = row.text("source");
  gpu.memory_gib = row.number("memory_gib", 0.001, 1e6, std::nullopt);
  gpu.memory_gb_s = row.number("memory_bandwidth_gb_s", 0.001, kMaxFigure, std::nullopt);
  gpu.f16_tflops = figure("dense_fp16_tensor_tflops");
  gpu.bf16_tflops = figure("dense_bf16_tensor_tflops");
  gpu.fp8_tflops = figure("dense_fp8_tflops");
  gpu.int8_tops = figure("int8_tops");
  gpu.f32_tflops = figure("fp32_tflops");
  gpu.nvlink_gb_s = figure("nvlink_gb_s");
  gpu.pcie_generation = row.integer("pcie_gen", 1, 9, 0);
  gpu.num_multiprocessors = row.integer("multiprocessors", 1, 100000, 0);
  gpu.ecc_reserved_fraction = row.number("ecc_reserved_fraction", 0, 0.5, 0.0);
  gpu.usd_per_hour = row.number("typical_cloud_usd_per_hour", 0, 1e6, 0.0);
  gpu.price_year = row.integer("cloud_price_year", 2000, 2200, 0);
  if (gpu.f16_tflops == 0 && gpu.bf16_tflops == 0 && gpu.f32_tflops == 0) {
    row.fail("fp32_tflops", "nothing, nor a rate for fp16 or bf16", "at least one of the three");
  }
  return gpu;
}

}  // namespace

int64_t GpuSpec::usable_bytes() const {
  const double bytes = memory_gib * (1 << 30) * (1 - ecc_reserved_fraction) * (1 - kDriverFraction);
  return static_cast<int64_t>(bytes);
}

absl::Status GpuTable::add(std::string_view csv, const std::string& where) {
  auto table = CsvTable::parse(csv, where, {"name", "memory_gib", "memory_bandwidth_gb_s"});
  if (!table.ok()) return table.status();
  std::vector<std::string> here;
  for (size_t i = 0; i < table->num_rows(); ++i) {
    CsvRow row(*table, i);
    GpuSpec gpu = read_gpu(row);
    if (std::find(here.begin(), here.end(), gpu.name) != here.end()) {
      row.fail("name", absl::StrCat("'", gpu.name, "' again"), "each name once");
    }
    if (!row.status().ok()) return row.status();
    here.push_back(gpu.name);
    const auto known = std::find_if(gpus_.begin(), gpus_.end(),
                                    [&](const GpuSpec& other) { return other.name == gpu.name; });
    if (known == gpus_.end()) {
      gpus_.push_back(std::move(gpu));
    } else {
      *known = std::move(gpu);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<GpuSpec> GpuTable::find(std::string_view name) const {
  std::vector<std::string> names;
  for (const GpuSpec& gpu : gpus_) {
    if (edit_distance(name, gpu.name) == 0) return gpu;
    names.push_back(gpu.name);
  }
  return absl::NotFoundError(absl::StrCat("GPU '", std::string(name), "' is not in the table; nearest are ",
                                          absl::StrJoin(nearest_names(name, names, 3), ", "),
                                          "; --gpu-table adds rows"));
}

GpuSpec weakest_of(const GpuSpec& a, const GpuSpec& b) {
  if (a.name == b.name) return a;
  GpuSpec least = a;
  least.name = absl::StrCat(a.name, " + ", b.name);
  for (double GpuSpec::*field :
       {&GpuSpec::memory_gb_s, &GpuSpec::f16_tflops, &GpuSpec::bf16_tflops, &GpuSpec::fp8_tflops,
        &GpuSpec::int8_tops, &GpuSpec::f32_tflops, &GpuSpec::nvlink_gb_s}) {
    least.*field = std::min(a.*field, b.*field);
  }
  if (b.usable_bytes() < a.usable_bytes()) {
    least.memory_gib = b.memory_gib;
    least.ecc_reserved_fraction = b.ecc_reserved_fraction;
  }
  least.pcie_generation = std::min(a.pcie_generation, b.pcie_generation);
  least.num_multiprocessors = std::min(a.num_multiprocessors, b.num_multiprocessors);
  const bool priced = a.usd_per_hour > 0 && b.usd_per_hour > 0;
  least.usd_per_hour = priced ? std::max(a.usd_per_hour, b.usd_per_hour) : 0;
  return least;
}

absl::StatusOr<std::vector<InventoryHost>> parse_inventory(std::string_view csv, const std::string& where,
                                                           const GpuTable& gpus) {
  auto table = CsvTable::parse(csv, where, {"host", "gpu", "devices"});
  if (!table.ok()) return table.status();
  std::vector<InventoryHost> hosts;
  for (size_t i = 0; i < table->num_rows(); ++i) {
    CsvRow row(*table, i);
    InventoryHost host;
    host.host = row.name("host");
    host.devices = row.integer("devices", 1, 1024, std::nullopt);
    auto gpu = gpus.find(row.name("gpu"));
    for (const InventoryHost& other : hosts) {
      if (other.host == host.host) row.fail("host", absl::StrCat("'", host.host, "' again"), "each once");
    }
    if (!row.status().ok()) return row.status();
    if (!gpu.ok()) {
      return absl::NotFoundError(
          absl::StrCat(where, ":", table->line(i), ": column gpu: ", gpu.status().message()));
    }
    host.gpu = *std::move(gpu);
    hosts.push_back(std::move(host));
  }
  return hosts;
}

}  // namespace trireme
