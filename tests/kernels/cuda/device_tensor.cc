#include "tests/kernels/cuda/device_tensor.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/kernels/cuda/device_memory.h"

namespace trireme::testing {
namespace {

size_t allocated_elements(const Tensor& tensor) {
  return tensor.rows == 0 ? 0 : static_cast<size_t>((tensor.rows - 1) * tensor.row_stride + tensor.cols);
}

float read(DType dtype, const void* element) {
  if (dtype == DType::bf16) return __bfloat162float(*static_cast<const __nv_bfloat16*>(element));
  if (dtype == DType::f16) return __half2float(*static_cast<const __half*>(element));
  return *static_cast<const float*>(element);
}

}  // namespace

DeviceTensor::DeviceTensor(DType dtype, int64_t rows, int64_t cols, int64_t row_stride)
    : tensor_(nullptr, dtype, rows, cols, row_stride) {
  const size_t bytes = allocated_elements(tensor_) * dtype_bytes(dtype);
  memory_ = make_device_memory(dtype, bytes);
  tensor_.data = memory_->data();
  EXPECT_EQ(cudaMemsetAsync(tensor_.data, 0xff, bytes, nullptr), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(nullptr), cudaSuccess);  // other streams may be next
}

DeviceTensor::DeviceTensor(DType dtype, int64_t rows, int64_t cols, const std::vector<float>& values)
    : DeviceTensor(dtype, rows, cols) {
  std::vector<unsigned char> bytes(values.size() * dtype_bytes(dtype));
  for (size_t i = 0; i < values.size(); ++i)
    write_element(dtype, bytes.data() + i * dtype_bytes(dtype), values[i]);
  copy_and_wait(tensor_.data, bytes.data(), bytes.size());
}

DeviceTensor::DeviceTensor(const std::vector<int32_t>& values)
    : DeviceTensor(DType::i32, 1, static_cast<int64_t>(values.size())) {
  copy_and_wait(tensor_.data, values.data(), values.size() * sizeof(int32_t));
}

DeviceTensor::~DeviceTensor() { cudaStreamSynchronize(nullptr); }

std::vector<float> DeviceTensor::values() const {
  const size_t width = dtype_bytes(tensor_.dtype);
  std::vector<unsigned char> bytes(allocated_elements(tensor_) * width);
  copy_and_wait(bytes.data(), tensor_.data, bytes.size());
  std::vector<float> result;
  for (int64_t row = 0; row < tensor_.rows; ++row) {
    for (int64_t col = 0; col < tensor_.cols; ++col)
      result.push_back(
          read(tensor_.dtype, bytes.data() + static_cast<size_t>(row * tensor_.row_stride + col) * width));
  }
  return result;
}

std::vector<float> random_values(std::mt19937& random, int64_t count, float scale) {
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = normal(random);
  return values;
}

double rounding(DType dtype, double num_roundings) {
  const double unit = dtype == DType::f32 ? 0x1p-24 : dtype == DType::f16 ? 0x1p-11 : 0x1p-8;
  return unit * num_roundings;
}

void expect_near(const std::vector<float>& got, const std::vector<double>& wanted, double relative,
                 double absolute) {
  ASSERT_EQ(got.size(), wanted.size());
  for (size_t i = 0; i < got.size(); ++i) {
    // Not the other way round: a NaN is near to nothing.
    if (std::abs(got[i] - wanted[i]) <= relative * std::abs(wanted[i]) + absolute) continue;
    FAIL() << "element " << i << ": got " << got[i] << ", wanted " << wanted[i];
  }
}

}  // namespace trireme::testing
