#include "kernels/ceilings.h"

#include <utility>

#include "kernels/cpu/onednn.h"
#include "kernels/cpu/probe.h"

namespace trireme {
namespace {

class CpuCeilings final : public Ceilings {
 public:
  CpuCeilings(cpu::ReadBandwidthProbe probe, int threads) : probe_(std::move(probe)), threads_(threads) {}
  std::string memory_name() const override { return "read"; }
  std::string product_name() const override { return "oneDNN"; }
  double memory_gb_s() override { return probe_.measure(); }
  absl::StatusOr<double> product_gflop_s(int64_t rows, int64_t out, int64_t in, DType dtype) override {
    return cpu::measure_product_rate(rows, out, in, dtype, threads_);
  }

 private:
  cpu::ReadBandwidthProbe probe_;
  int threads_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Ceilings>> create_cpu_ceilings(size_t bytes, int threads) {
  auto probe = cpu::ReadBandwidthProbe::create(bytes, threads);
  if (!probe.ok()) return probe.status();
  return std::make_unique<CpuCeilings>(*std::move(probe), threads);
}

}  // namespace trireme
