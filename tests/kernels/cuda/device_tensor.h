#pragma once
// Tensors of tests on the device: filled from floats, read back as floats.

#include <cuda_runtime.h>

#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "kernels/tensor.h"

namespace trireme::testing {

/// While one lives, tensors are made with something around them that tells of kernels which read or write
/// beside what they are given. Those tensors are gone before it is.
class Surroundings {
 public:
  /// room: memory that may be read and written without harm: large numbers, or small ones of either sign
  /// where they are integers, so that an index from there leads not far; no two rooms are alike. wall: behind
  /// the tensor (up to a multiple of 16 bytes) is memory that nobody may touch: who does so is ended.
  enum class Kind { none, room, wall };
  explicit Surroundings(Kind kind);
  ~Surroundings();
  Surroundings(const Surroundings&) = delete;
  Surroundings& operator=(const Surroundings&) = delete;

  /// Whether the room around any tensor that is gone was written to since this was last asked.
  static bool take_damage();
};

class DeviceMemory;

/// A matrix in memory of the device with not a byte to spare. Its elements start as NaN.
class DeviceTensor {
 public:
  DeviceTensor(DType dtype, int64_t rows, int64_t cols) : DeviceTensor(dtype, rows, cols, cols) {}
  DeviceTensor(DType dtype, int64_t rows, int64_t cols, int64_t row_stride);
  /// `values` rounded to `dtype`; they are what the test reckons with, too: values() gives them back.
  DeviceTensor(DType dtype, int64_t rows, int64_t cols, const std::vector<float>& values);
  explicit DeviceTensor(const std::vector<int32_t>& values);
  ~DeviceTensor();
  DeviceTensor(const DeviceTensor&) = delete;
  DeviceTensor& operator=(const DeviceTensor&) = delete;

  const Tensor& tensor() const { return tensor_; }
  operator const Tensor&() const { return tensor_; }
  /// Waits for the default stream. Row-major, rows * cols.
  std::vector<float> values() const;

 private:
  Tensor tensor_;
  std::unique_ptr<DeviceMemory> memory_;
};

/// Normally distributed.
std::vector<float> random_values(std::mt19937& random, int64_t count, float scale = 1);

/// Relative error of one rounding to `dtype`, times `num_roundings`.
double rounding(DType dtype, double num_roundings = 1);

/// Fails where a value is NaN or further from `wanted` than `relative` of it plus `absolute`.
void expect_near(const std::vector<float>& got, const std::vector<double>& wanted, double relative,
                 double absolute);

}  // namespace trireme::testing
