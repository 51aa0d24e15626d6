#pragma once
// What a device can do, measured in the moments in which work is: the ceilings that benchmarks set their
// figures beside.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/dtype.h"

namespace trireme {

class Ceilings {
 public:
  virtual ~Ceilings() = default;
  /// What memory_gb_s() measures: "read" or "copy".
  virtual std::string memory_name() const = 0;
  /// Whose products product_gflop_s() measures.
  virtual std::string product_name() const = 0;
  /// GB/s (1e9 bytes) of one pass over a buffer that no cache holds; what a copy reads and what it writes
  /// both count.
  virtual double memory_gb_s() = 0;
  /// GFLOP/s of [rows, in] x [in, out] with operands of `dtype`. UNIMPLEMENTED where the library cannot.
  virtual absl::StatusOr<double> product_gflop_s(int64_t rows, int64_t out, int64_t in, DType dtype) = 0;
};

/// Of the host: `bytes` are read by `threads` threads. RESOURCE_EXHAUSTED.
absl::StatusOr<std::unique_ptr<Ceilings>> create_cpu_ceilings(size_t bytes, int threads);
/// Of a GPU that a backend of this process already computes on: copies within a buffer of `bytes`.
/// RESOURCE_EXHAUSTED; UNIMPLEMENTED in a build without CUDA.
absl::StatusOr<std::unique_ptr<Ceilings>> create_cuda_ceilings(int device, size_t bytes);

}  // namespace trireme
