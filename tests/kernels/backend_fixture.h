#pragma once
// Conformance tests run on every backend this build and machine have.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/backend.h"

namespace trireme::testing {

struct BackendCase {
  std::string name;
  std::function<absl::StatusOr<std::unique_ptr<Backend>>()> create;
};
std::vector<BackendCase> available_backends();
inline void PrintTo(const BackendCase& backend, std::ostream* out) { *out << backend.name; }

/// What a sum of products may differ from the exact sum, relative to the sum of the magnitudes. bf16 operands
/// are rounded before the reference sees them, so only the summation in f32 is left.
inline constexpr double kSumTolerance = 2e-6;
/// What an elementwise result may differ, relative to its magnitude.
inline constexpr double kElementTolerance = 2e-6;

/// A matrix in the backend's memory, with columns of poison (NaN) between the rows where `gap` > 0.
class DeviceMatrix {
 public:
  DeviceMatrix(Backend& backend, int64_t rows, int64_t cols, int64_t gap = 0, DType dtype = DType::f32);
  Tensor tensor() const { return {buffer_.data(), dtype_, rows_, cols_, cols_ + gap_}; }
  void upload(const std::vector<float>& values);
  void upload(const std::vector<int32_t>& values);
  /// The values; fails the test if poison between the rows was overwritten.
  std::vector<float> floats() const;
  std::vector<int32_t> ints() const;

 private:
  std::vector<uint32_t> words() const;
  Backend* backend_;
  int64_t rows_, cols_, gap_;
  DType dtype_;
  Buffer buffer_;
};

class BackendTest : public ::testing::TestWithParam<BackendCase> {
 protected:
  void SetUp() override;
  Backend& backend() { return *backend_; }
  bool can(DType dtype) const { return backend_->check_compute_dtype(dtype).ok(); }
  /// f32, and bf16 where the device has it.
  std::vector<DType> dtypes() const;

  DeviceMatrix empty(int64_t rows, int64_t cols, int64_t gap = 0);  // poisoned
  DeviceMatrix upload(const std::vector<float>& values, int64_t rows, int64_t cols, int64_t gap = 0);
  DeviceMatrix upload_ints(const std::vector<int32_t>& values, int64_t rows, int64_t cols);
  /// Plain data in the backend's memory.
  template <typename T>
  Buffer upload_bytes(const std::vector<T>& values) {
    auto buffer = backend().allocate(std::max<size_t>(values.size(), 1) * sizeof(T));
    EXPECT_TRUE(buffer.ok()) << buffer.status();
    backend().copy_to_device(buffer->data(), values.data(), values.size() * sizeof(T));
    return *std::move(buffer);
  }
  std::unique_ptr<Weight> weight(const std::vector<float>& values, int64_t out, int64_t in, DType dtype);

 private:
  std::unique_ptr<Backend> backend_;
};

#define TRIREME_INSTANTIATE_BACKENDS(Suite)                                                                \
  INSTANTIATE_TEST_SUITE_P(Backends, Suite, ::testing::ValuesIn(::trireme::testing::available_backends()), \
                           [](const auto& backend_case) { return backend_case.param.name; })

std::vector<float> normal_values(int64_t count, uint32_t seed, float scale = 1);
/// Rounded to dtype (f32: as is) and back, to nearest even.
float round_to(float value, DType dtype);
std::vector<float> round_all(std::vector<float> values, DType dtype);

/// |got - want| <= tolerance everywhere; a NaN fails.
void expect_close(const std::vector<float>& got, const std::vector<double>& want,
                  const std::vector<double>& tolerance, const std::string& what);
/// Equal bits, so that NaN and the sign of zero count.
void expect_same_bits(const std::vector<float>& a, const std::vector<float>& b, const std::string& what);
/// Rows [first, first + count) of a row-major matrix.
std::vector<float> rows_of(const std::vector<float>& values, int64_t cols, int64_t first, int64_t count);

}  // namespace trireme::testing
