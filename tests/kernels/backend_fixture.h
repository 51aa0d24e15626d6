#pragma once
// Conformance tests. The same sources make several programs, each with the backends of one backend_cases.cc:
// the CPU's, the CUDA backend's run on the processor, the CUDA backend's on a device.

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
/// One for each dtype of activations, too.
std::vector<BackendCase> available_backends();
/// The same without those that differ in the dtype of activations alone.
std::vector<BackendCase> backends_of_one_dtype();
/// Whether only the small ones of the sizes are for them: where each thread of a device is a fiber.
bool backends_are_slow();
inline void PrintTo(const BackendCase& backend, std::ostream* out) { *out << backend.name; }

/// What results may differ from those of exact arithmetic with the same (rounded) operands.
struct Tolerance {
  double sum;        // of a sum of products, relative to the sum of the magnitudes
  double element;    // of an elementwise result, relative to its magnitude
  double attention;  // relative to the weighted magnitudes of the values
  double rounding;   // of one rounding to the dtype, relative
  double absolute;   // the same near zero
};

/// A matrix in the backend's memory, with columns of poison (NaN) between the rows where `gap` > 0.
class DeviceMatrix {
 public:
  DeviceMatrix(Backend& backend, int64_t rows, int64_t cols, int64_t gap = 0, DType dtype = DType::f32);
  Tensor tensor() const { return {buffer_.data(), dtype_, rows_, cols_, cols_ + gap_}; }
  /// Rounded to the dtype.
  void upload(const std::vector<float>& values);
  void upload(const std::vector<int32_t>& values);
  /// The values; fails the test if poison between the rows was overwritten.
  std::vector<float> floats() const;
  std::vector<int32_t> ints() const;

 private:
  size_t element_bytes() const { return dtype_bytes(dtype_); }
  std::vector<unsigned char> poison() const;
  void upload_bytes(const unsigned char* values);
  std::vector<unsigned char> bytes() const;
  Backend* backend_;
  int64_t rows_, cols_, gap_;
  DType dtype_;
  Buffer buffer_;
};

class BackendTest : public ::testing::TestWithParam<BackendCase> {
 protected:
  void SetUp() override;
  void TearDown() override;
  Backend& backend() { return *backend_; }
  bool can(DType dtype) const { return backend_->check_compute_dtype(dtype).ok(); }
  bool on_cuda() const { return backend_->name() == "cuda"; }
  /// Of activations.
  DType dtype() const { return backend_->activation_dtype(); }
  const Tolerance& tolerance() const;
  /// Those that weights may have.
  std::vector<DType> dtypes() const;
  /// The sizes to test: `few` where backends are slow.
  template <typename T>
  static std::vector<T> sizes(std::vector<T> all, std::vector<T> few) {
    return backends_are_slow() ? few : all;
  }

  // Of the activations' dtype.
  DeviceMatrix empty(int64_t rows, int64_t cols, int64_t gap = 0);  // poisoned
  DeviceMatrix upload(const std::vector<float>& values, int64_t rows, int64_t cols, int64_t gap = 0);
  std::vector<float> activations(int64_t count, uint32_t seed, float scale = 1) const;
  // Of f32.
  DeviceMatrix empty_f32(int64_t rows, int64_t cols, int64_t gap = 0);
  DeviceMatrix upload_f32(const std::vector<float>& values, int64_t rows, int64_t cols, int64_t gap = 0);
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

#define TRIREME_INSTANTIATE_OVER(Suite, cases)                          \
  INSTANTIATE_TEST_SUITE_P(Backends, Suite, ::testing::ValuesIn(cases), \
                           [](const auto& backend_case) { return backend_case.param.name; })
#define TRIREME_INSTANTIATE_BACKENDS(Suite) \
  TRIREME_INSTANTIATE_OVER(Suite, ::trireme::testing::available_backends())
/// For operations without activations.
#define TRIREME_INSTANTIATE_BACKENDS_OF_ONE_DTYPE(Suite) \
  TRIREME_INSTANTIATE_OVER(Suite, ::trireme::testing::backends_of_one_dtype())

/// Another one for each run of the program; TRIREME_TEST_SEED sets it.
uint32_t run_seed();
/// Of a normal distribution: others for each `seed`, and in each run.
std::vector<float> normal_values(int64_t count, uint32_t seed, float scale = 1);
/// Rounded to dtype (f32: as is; bf16, f16) and back, to nearest even.
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
