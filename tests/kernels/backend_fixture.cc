#include "tests/kernels/backend_fixture.h"

#include <bit>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "hwy/highway.h"

namespace trireme::testing {
namespace {
constexpr unsigned char kPoison = 0xff;  // every byte of a NaN, of whatever dtype

struct DTypeTolerance {
  const char* backend;
  DType dtype;
  Tolerance tolerance;
};
// The device's own exp() is good to about 1e-6; probabilities are rounded before they meet the values, and
// rotated keys and queries may fall on the other side of a rounding border than the reference's.
constexpr DTypeTolerance kTolerances[] = {
    {"cpu", DType::f32, {2e-6, 2e-6, 2e-5, 0, 0}},
    {"cuda", DType::f32, {2e-6, 1e-5, 2e-5, 0x1p-24, 0}},
    {"cuda", DType::bf16, {2e-6, 1e-5, 2e-2, 0x1p-8, 0}},
    {"cuda", DType::f16, {2e-6, 1e-5, 3e-3, 0x1p-11, 0x1p-24}},
};

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

/// The bits of `value`, rounded to nearest even; below 16 of them for the narrow dtypes.
uint32_t stored_bits(float value, DType dtype) {
  uint32_t bits = std::bit_cast<uint32_t>(value);
  if (dtype == DType::f16) return std::bit_cast<uint16_t>(static_cast<_Float16>(value));
  if (dtype != DType::bf16) return bits;
  if ((bits & 0x7fffffffu) > 0x7f800000u) return bits >> 16 | 0x40u;
  return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}

float widened(uint32_t bits, DType dtype) {
  if (dtype == DType::f16) return static_cast<float>(std::bit_cast<_Float16>(static_cast<uint16_t>(bits)));
  return std::bit_cast<float>(dtype == DType::bf16 ? bits << 16 : bits);
}
}  // namespace

DeviceMatrix::DeviceMatrix(Backend& backend, int64_t rows, int64_t cols, int64_t gap, DType dtype)
    : backend_(&backend), rows_(rows), cols_(cols), gap_(gap), dtype_(dtype) {
  const std::vector<unsigned char> all = poison();
  auto buffer = backend.allocate(all.size());
  EXPECT_TRUE(buffer.ok()) << buffer.status();
  buffer_ = *std::move(buffer);
  backend.copy_to_device(buffer_.data(), all.data(), all.size());
}

std::vector<unsigned char> DeviceMatrix::poison() const {
  return std::vector<unsigned char>(static_cast<size_t>(rows_ * (cols_ + gap_)) * element_bytes(), kPoison);
}

void DeviceMatrix::upload_bytes(const unsigned char* values) {
  std::vector<unsigned char> all = poison();
  const size_t row_bytes = static_cast<size_t>(cols_) * element_bytes(),
               stride = static_cast<size_t>(cols_ + gap_) * element_bytes();
  for (size_t r = 0; r < static_cast<size_t>(rows_); ++r)
    std::memcpy(all.data() + r * stride, values + r * row_bytes, row_bytes);
  backend_->copy_to_device(buffer_.data(), all.data(), all.size());
}

void DeviceMatrix::upload(const std::vector<float>& values) {
  std::vector<unsigned char> stored(values.size() * element_bytes());
  for (size_t i = 0; i < values.size(); ++i) {
    const uint32_t bits = stored_bits(values[i], dtype_);
    std::memcpy(stored.data() + i * element_bytes(), &bits, element_bytes());
  }
  upload_bytes(stored.data());
}

void DeviceMatrix::upload(const std::vector<int32_t>& values) {
  upload_bytes(reinterpret_cast<const unsigned char*>(values.data()));
}

std::vector<unsigned char> DeviceMatrix::bytes() const {
  std::vector<unsigned char> all = poison(), inside;
  backend_->copy_to_host(all.data(), buffer_.data(), all.size());
  backend_->synchronize();
  const int64_t row_bytes = cols_ * static_cast<int64_t>(element_bytes()),
                gap_bytes = gap_ * static_cast<int64_t>(element_bytes());
  for (int64_t r = 0; r < rows_; ++r) {
    const auto row = all.begin() + r * (row_bytes + gap_bytes);
    inside.insert(inside.end(), row, row + row_bytes);
    for (int64_t g = 0; g < gap_bytes; ++g)
      EXPECT_EQ(row[row_bytes + g], kPoison) << "written beside row " << r;
  }
  return inside;
}

std::vector<float> DeviceMatrix::floats() const {
  const std::vector<unsigned char> all = bytes();
  std::vector<float> values;
  for (size_t i = 0; i < all.size(); i += element_bytes()) {
    uint32_t bits = 0;
    std::memcpy(&bits, &all[i], element_bytes());
    values.push_back(widened(bits, dtype_));
  }
  return values;
}

std::vector<int32_t> DeviceMatrix::ints() const {
  const std::vector<unsigned char> all = bytes();
  std::vector<int32_t> values(all.size() / sizeof(int32_t));
  if (!all.empty()) std::memcpy(values.data(), all.data(), all.size());
  return values;
}

void BackendTest::SetUp() {
  limit_instruction_set();
  auto backend = GetParam().create();
  // No device: neither the CPU's backend nor the one compiled for it says so.
  if (backend.status().code() == absl::StatusCode::kFailedPrecondition)
    GTEST_SKIP() << "skipped: " << backend.status().message();
  ASSERT_TRUE(backend.ok()) << backend.status();
  backend_ = *std::move(backend);
}

void BackendTest::TearDown() {
  if (HasFailure()) std::printf("The same inputs again: TRIREME_TEST_SEED=%u\n", run_seed());
}

std::vector<DType> BackendTest::dtypes() const {
  std::vector<DType> all;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
    if (can(dtype)) all.push_back(dtype);
  return all;
}

const Tolerance& BackendTest::tolerance() const {
  for (const DTypeTolerance& entry : kTolerances)
    if (entry.backend == backend_->name() && entry.dtype == dtype()) return entry.tolerance;
  ADD_FAILURE() << "no tolerance for " << backend_->name() << " " << dtype_name(dtype());
  return kTolerances[0].tolerance;
}

DeviceMatrix BackendTest::empty(int64_t rows, int64_t cols, int64_t gap) {
  return {backend(), rows, cols, gap, dtype()};
}

DeviceMatrix BackendTest::empty_f32(int64_t rows, int64_t cols, int64_t gap) {
  return {backend(), rows, cols, gap};
}

DeviceMatrix BackendTest::upload(const std::vector<float>& values, int64_t rows, int64_t cols, int64_t gap) {
  DeviceMatrix matrix(backend(), rows, cols, gap, dtype());
  matrix.upload(values);
  return matrix;
}

DeviceMatrix BackendTest::upload_f32(const std::vector<float>& values, int64_t rows, int64_t cols,
                                     int64_t gap) {
  DeviceMatrix matrix(backend(), rows, cols, gap);
  matrix.upload(values);
  return matrix;
}

std::vector<float> BackendTest::activations(int64_t count, uint32_t seed, float scale) const {
  return round_all(normal_values(count, seed, scale), dtype());
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

uint32_t run_seed() {
  static const uint32_t seed = [] {
    const char* wanted = std::getenv("TRIREME_TEST_SEED");
    return wanted != nullptr ? static_cast<uint32_t>(std::strtoul(wanted, nullptr, 10))
                             : std::random_device{}();
  }();
  return seed;
}

std::vector<float> normal_values(int64_t count, uint32_t seed, float scale) {
  std::seed_seq both{run_seed(), seed};
  std::mt19937 generator(both);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = normal(generator);
  return values;
}

float round_to(float value, DType dtype) { return widened(stored_bits(value, dtype), dtype); }

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
