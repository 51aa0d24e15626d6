#include "tests/kernels/backend_fixture.h"

#include <bit>
#include <cstdlib>
#include <string_view>

#include "hwy/highway.h"

namespace trireme::testing {
namespace {
constexpr uint32_t kPoison = 0x7fc0dead;  // a NaN

/// TRIREME_TEST_ISA=avx2|baseline: the CPU kernels of processors older than this one.
void limit_instruction_set() {
  const char* wanted = std::getenv("TRIREME_TEST_ISA");
  if (wanted == nullptr) return;
  const bool avx2 = std::string_view(wanted) == "avx2";
  ASSERT_TRUE(avx2 || std::string_view(wanted) == "baseline") << "TRIREME_TEST_ISA: got " << wanted;
  hwy::SetSupportedTargetsForTest(avx2 ? hwy::SupportedTargets() & (HWY_AVX2 | HWY_STATIC_TARGET)
                                       : HWY_STATIC_TARGET);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}
}  // namespace

std::vector<BackendCase> available_backends() {
  return {{"cpu", [] { return create_cpu_backend({.num_threads = 2}); }},
          {"cpu_3_threads", [] { return create_cpu_backend({.num_threads = 3}); }}};
}

DeviceMatrix::DeviceMatrix(Backend& backend, int64_t rows, int64_t cols, int64_t gap, DType dtype)
    : backend_(&backend), rows_(rows), cols_(cols), gap_(gap), dtype_(dtype) {
  auto buffer = backend.allocate(static_cast<size_t>(rows * (cols + gap)) * 4);
  EXPECT_TRUE(buffer.ok()) << buffer.status();
  buffer_ = *std::move(buffer);
  const std::vector<uint32_t> poison(static_cast<size_t>(rows * (cols + gap)), kPoison);
  backend.copy_to_device(buffer_.data(), poison.data(), poison.size() * 4);
}

void DeviceMatrix::upload(const std::vector<float>& values) {
  std::vector<uint32_t> all(static_cast<size_t>(rows_ * (cols_ + gap_)), kPoison);
  for (int64_t r = 0; r < rows_; ++r)
    std::memcpy(&all[static_cast<size_t>(r * (cols_ + gap_))], &values[static_cast<size_t>(r * cols_)],
                static_cast<size_t>(cols_) * 4);
  backend_->copy_to_device(buffer_.data(), all.data(), all.size() * 4);
}

void DeviceMatrix::upload(const std::vector<int32_t>& values) {
  std::vector<float> bits(values.size());
  std::memcpy(bits.data(), values.data(), values.size() * 4);
  upload(bits);
}

std::vector<uint32_t> DeviceMatrix::words() const {
  std::vector<uint32_t> all(static_cast<size_t>(rows_ * (cols_ + gap_))), inside;
  backend_->synchronize();
  backend_->copy_to_host(all.data(), buffer_.data(), all.size() * 4);
  for (int64_t r = 0; r < rows_; ++r) {
    const auto row = all.begin() + r * (cols_ + gap_);
    inside.insert(inside.end(), row, row + cols_);
    for (int64_t g = 0; g < gap_; ++g) EXPECT_EQ(row[cols_ + g], kPoison) << "written beside row " << r;
  }
  return inside;
}

std::vector<float> DeviceMatrix::floats() const {
  const std::vector<uint32_t> bits = words();
  std::vector<float> values(bits.size());
  std::memcpy(values.data(), bits.data(), bits.size() * 4);
  return values;
}

std::vector<int32_t> DeviceMatrix::ints() const {
  const std::vector<uint32_t> bits = words();
  return {bits.begin(), bits.end()};
}

void BackendTest::SetUp() {
  limit_instruction_set();
  auto backend = GetParam().create();
  ASSERT_TRUE(backend.ok()) << backend.status();
  backend_ = *std::move(backend);
}

std::vector<DType> BackendTest::dtypes() const {
  std::vector<DType> all = {DType::f32};
  if (can(DType::bf16)) all.push_back(DType::bf16);
  return all;
}

DeviceMatrix BackendTest::empty(int64_t rows, int64_t cols, int64_t gap) {
  return {backend(), rows, cols, gap};
}

DeviceMatrix BackendTest::upload(const std::vector<float>& values, int64_t rows, int64_t cols, int64_t gap) {
  DeviceMatrix matrix(backend(), rows, cols, gap);
  matrix.upload(values);
  return matrix;
}

DeviceMatrix BackendTest::upload_ints(const std::vector<int32_t>& values, int64_t rows, int64_t cols) {
  DeviceMatrix matrix(backend(), rows, cols, 0, DType::i32);
  matrix.upload(values);
  return matrix;
}

std::unique_ptr<Weight> BackendTest::weight(const std::vector<float>& values, int64_t out, int64_t in,
                                            DType dtype) {
  auto builder = backend().prepare_weight(out, in, dtype);
  EXPECT_TRUE(builder.ok()) << builder.status();
  (*builder)->write(0, out, 0, in, values.data(), in, DType::f32);
  return (*builder)->finish();
}

std::vector<float> normal_values(int64_t count, uint32_t seed, float scale) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = normal(generator);
  return values;
}

float round_to(float value, DType dtype) {
  if (dtype == DType::f32) return value;
  uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return value;
  bits += 0x7fffu + (bits >> 16 & 1u);
  return std::bit_cast<float>(bits & 0xffff0000u);
}

std::vector<float> round_all(std::vector<float> values, DType dtype) {
  for (float& value : values) value = round_to(value, dtype);
  return values;
}

void expect_close(const std::vector<float>& got, const std::vector<double>& want,
                  const std::vector<double>& tolerance, const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (size_t i = 0; i < got.size(); ++i) {
    const double error = std::abs(got[i] - want[i]);
    ASSERT_TRUE(error <= tolerance[i]) << what << ", element " << i << ": got " << got[i] << ", wanted "
                                       << want[i] << " within " << tolerance[i];
  }
}

void expect_same_bits(const std::vector<float>& a, const std::vector<float>& b, const std::string& what) {
  ASSERT_EQ(a.size(), b.size()) << what;
  for (size_t i = 0; i < a.size(); ++i) {
    ASSERT_EQ(std::bit_cast<uint32_t>(a[i]), std::bit_cast<uint32_t>(b[i]))
        << what << ", element " << i << ": " << a[i] << " and " << b[i];
  }
}

std::vector<float> rows_of(const std::vector<float>& values, int64_t cols, int64_t first, int64_t count) {
  return {values.begin() + first * cols, values.begin() + (first + count) * cols};
}

}  // namespace trireme::testing
