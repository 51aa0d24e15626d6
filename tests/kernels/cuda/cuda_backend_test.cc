// What is particular to the CUDA backend: dtypes, memory, copies.

#include <numeric>
#include <thread>

#include "tests/kernels/backend_fixture.h"

namespace trireme::testing {
namespace {

using ::testing::HasSubstr;

class CudaBackendTest : public BackendTest {};
TRIREME_INSTANTIATE_BACKENDS(CudaBackendTest);

TEST_P(CudaBackendTest, SaysWhatItIs) {
  EXPECT_EQ(backend().name(), "cuda");
  EXPECT_THAT(backend().description(), HasSubstr("compute capability"));
  EXPECT_THAT(backend().description(), HasSubstr(std::string(dtype_name(dtype()))));
  EXPECT_GT(backend().available_memory_bytes(), 0);
}

TEST_P(CudaBackendTest, WeightsAndCacheHaveTheActivationsDType) {
  for (const DType other : {DType::f32, DType::bf16, DType::f16}) {
    if (other == dtype()) continue;
    const absl::Status weight = backend().prepare_weight(8, 8, other).status();
    EXPECT_EQ(weight.code(), absl::StatusCode::kUnimplemented);
    EXPECT_THAT(std::string(weight.message()), HasSubstr(std::string(dtype_name(other))));
    EXPECT_EQ(backend().create_kv_cache({1, 1, 64, 16, other}, 1).status().code(),
              absl::StatusCode::kUnimplemented);
  }
  const absl::Status heads = backend().create_kv_cache({1, 1, 264, 16, dtype()}, 1).status();
  EXPECT_EQ(heads.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(heads.message()), HasSubstr("264"));
}

TEST_P(CudaBackendTest, MemoryThatIsNotThereIsRefused) {
  const absl::Status buffer = backend().allocate(size_t{1} << 50).status();
  EXPECT_EQ(buffer.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(buffer.message()), HasSubstr("wanted 1125899906842624 bytes, available "));
  const absl::Status weight = backend().prepare_weight(1 << 20, 1 << 28, dtype()).status();
  EXPECT_EQ(weight.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(weight.message()), HasSubstr("[1048576, 268435456]"));
  EXPECT_EQ(backend().create_kv_cache({80, 8, 128, 16, dtype()}, 1 << 28).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(backend().allocate(1 << 20).ok()) << "what was refused leaves the device as it was";
}

TEST_P(CudaBackendTest, FreedMemoryIsAvailableAgain) {
  ASSERT_TRUE(backend().allocate(1 << 20).ok());  // what the driver loads to clear memory, it keeps
  const int64_t before = backend().available_memory_bytes();
  {
    const auto buffer = backend().allocate(size_t{64} << 20);
    ASSERT_TRUE(buffer.ok());
    EXPECT_LE(backend().available_memory_bytes(), before - (int64_t{64} << 20));
  }
  EXPECT_EQ(backend().available_memory_bytes(), before);
}

TEST_P(CudaBackendTest, NewMemoryIsZero) {
  const auto buffer = backend().allocate(100000);
  ASSERT_TRUE(buffer.ok());
  std::vector<unsigned char> bytes(100000, 7);
  backend().copy_to_host(bytes.data(), buffer->data(), bytes.size());
  backend().synchronize();
  EXPECT_EQ(std::count(bytes.begin(), bytes.end(), 0), 100000);
}

TEST_P(CudaBackendTest, SourcesOfCopiesMayChangeAtOnceAndAllArriveInOrder) {
  // More than the pinned memory between them holds, in pieces of many sizes.
  const size_t words = 300000;
  const auto buffer = backend().allocate(words * sizeof(int32_t));
  ASSERT_TRUE(buffer.ok());
  int32_t* const device = static_cast<int32_t*>(buffer->data());
  std::vector<int32_t> source, got(words, -1), want(words);
  std::iota(want.begin(), want.end(), 0);
  for (size_t begin = 0, size = 1; begin < words; begin += size, size = size * 3 + 1) {
    size = std::min(size, words - begin);
    source.assign(want.begin() + static_cast<int64_t>(begin),
                  want.begin() + static_cast<int64_t>(begin + size));
    backend().copy_to_device(device + begin, source.data(), size * sizeof(int32_t));
    std::fill(source.begin(), source.end(), -5);
  }
  for (size_t begin = 0; begin < words; begin += 777) {
    const size_t size = std::min<size_t>(777, words - begin);
    backend().copy_to_host(got.data() + begin, device + begin, size * sizeof(int32_t));
  }
  backend().synchronize();
  EXPECT_EQ(got, want);
}

TEST_P(CudaBackendTest, AWeightTakesItsElementsOnly) {
  EXPECT_EQ((*backend().prepare_weight(65, 33, dtype()))->finish()->bytes(), 65 * 33 * dtype_bytes(dtype()));
}

TEST_P(CudaBackendTest, LargePiecesOfManyThreadsReachTheWeight) {
  // Rows longer, and pieces larger, than what is moved at once; read back through embedding().
  const int64_t rows = 6, cols = (1 << 19) + 40;
  const auto values = activations(rows * cols, 3);
  auto builder = backend().prepare_weight(rows, cols, dtype());
  ASSERT_TRUE(builder.ok());
  std::vector<std::thread> writers;
  for (int64_t row = 0; row < rows; row += 2) {
    writers.emplace_back([&, row] {
      (*builder)->write(row, 2, 0, cols, &values[static_cast<size_t>(row * cols)], cols, DType::f32);
    });
  }
  for (std::thread& writer : writers) writer.join();
  const auto weight = (*builder)->finish();
  const DeviceMatrix ids = upload_ints({5, 0, 3}, 1, 3), out = empty(3, cols);
  backend().embedding(ids.tensor(), *weight, 0, out.tensor());
  std::vector<float> want;
  for (const int64_t row : {5, 0, 3}) {
    const auto one = rows_of(values, cols, row, 1);
    want.insert(want.end(), one.begin(), one.end());
  }
  expect_same_bits(out.floats(), want, "rows");
}

TEST_P(CudaBackendTest, DrawnWeightsAreThoseOfTheHost) {
  const int64_t rows = 33, cols = 50;
  const NormalQuantiles narrow(0.02f), wide(1);
  auto builder = backend().prepare_weight(rows, cols, dtype());
  ASSERT_TRUE(builder.ok());
  (*builder)->draw(0, 20, 0, cols, {7, 90, 3, 5, &narrow});
  (*builder)->draw(20, 13, 10, 40, {8, 40, 0, 0, &wide});
  const auto weight = (*builder)->finish();
  std::vector<float> want(static_cast<size_t>(rows * cols), 0.0f);
  for (int64_t row = 0; row < 20; ++row)
    draw_values(7, static_cast<uint64_t>((3 + row) * 90 + 5), cols, narrow, &want[row * cols]);
  for (int64_t row = 0; row < 13; ++row)
    draw_values(8, static_cast<uint64_t>(row * 40), 40, wide, &want[(20 + row) * cols + 10]);
  std::vector<int32_t> all(static_cast<size_t>(rows));
  std::iota(all.begin(), all.end(), 0);
  const DeviceMatrix ids = upload_ints(all, 1, rows), out = empty(rows, cols);
  backend().embedding(ids.tensor(), *weight, 0, out.tensor());
  expect_same_bits(out.floats(), round_all(want, dtype()), "elements");
}

TEST_P(CudaBackendTest, ManyRowsStartFromTheirBias) {
  // 40 rows of aligned sizes go to the library; the narrow dtypes' biases are exact there, too.
  const int64_t in = 64, out = 48, rows = 40;
  const auto w = activations(out * in, 1), x = activations(rows * in, 2), bias = activations(out, 3);
  const auto packed = weight(w, out, in, dtype());
  const DeviceMatrix device_x = upload(x, rows, in, 8), device_out = empty(rows, out, 16),
                     device_bias = upload_f32(bias, 1, out);
  const int64_t before = backend().num_compiled_kernels();
  backend().matmul(device_x.tensor(), *packed, device_bias.tensor(), device_out.tensor());
  EXPECT_EQ(backend().num_compiled_kernels(), before + 1);
  std::vector<double> want, tolerances;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t o = 0; o < out; ++o) {
      double sum = bias[o], magnitude = std::abs(sum);
      for (int64_t i = 0; i < in; ++i) {
        sum += double{x[r * in + i]} * w[o * in + i];
        magnitude += std::abs(double{x[r * in + i]} * w[o * in + i]);
      }
      want.push_back(sum);
      tolerances.push_back(tolerance().sum * magnitude + tolerance().rounding * std::abs(sum) +
                           tolerance().absolute);
    }
  }
  expect_close(device_out.floats(), want, tolerances, "sums");
}

TEST_P(CudaBackendTest, SumsOfManyRowsAreRoundedOnce) {
  // The first half of each sum has more digits than a narrow dtype, the whole sum has not.
  const int64_t in = 4096, out = 64, rows = 16;
  std::vector<float> w(static_cast<size_t>(out * in), 1.0f), x(static_cast<size_t>(rows * in), 0.0f);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < in; ++i) x[r * in + i] = i < in / 2 ? 1.0f : -1.0f;
    x[r * in] = 2;
    x[r * in + 1] = static_cast<float>(2 + r);
  }
  const auto packed = weight(w, out, in, dtype());
  ASSERT_TRUE(backend().reserve_workspace(rows, rows, in, 600).ok());
  const DeviceMatrix device_x = upload(x, rows, in), device_out = empty(rows, out);
  backend().matmul(device_x.tensor(), *packed, Tensor(), device_out.tensor());
  const std::vector<float> sums = device_out.floats();
  for (int64_t r = 0; r < rows; ++r) EXPECT_EQ(sums[r * out], static_cast<float>(2 + r)) << "row " << r;
}

TEST_P(CudaBackendTest, AWarmedUpStepTakesNoMoreMemory) {
  const auto w = weight(normal_values(40 * 96, 1), 40, 96, dtype());
  ASSERT_TRUE(backend().reserve_workspace(128, 8, 96, 600).ok());
  const DeviceMatrix x = upload(activations(128 * 96, 2), 128, 96), out = empty(128, 40),
                     logits = upload_f32(normal_values(2 * 600, 3), 2, 600), logprobs = empty_f32(1, 2);
  const DeviceMatrix ids = upload_ints(std::vector<int32_t>(2), 1, 2);
  std::vector<SamplingRow> rows(2, SamplingRow{1, 5, 0.9f, 0, 1, 2, 3});
  std::vector<int32_t> banned(2 * kMaxBanned), bias_ids(2 * kMaxBiases);
  const std::vector<float> biases(bias_ids.size(), 1.0f);
  for (size_t i = 0; i < banned.size(); ++i) banned[i] = static_cast<int32_t>(i % 500);
  for (SamplingRow& row : rows) {
    row.num_banned = kMaxBanned;
    row.num_biases = kMaxBiases;
  }
  std::vector<int32_t> first_bias, first_banned;
  for (int32_t i = 0; i < 2; ++i) {
    first_bias.push_back(i * kMaxBiases);
    first_banned.push_back(i * kMaxBanned);
  }
  const Buffer device_rows = upload_bytes(rows), device_banned = upload_bytes(banned),
               device_bias_ids = upload_bytes(bias_ids), device_biases = upload_bytes(biases),
               device_first_bias = upload_bytes(first_bias), device_first_banned = upload_bytes(first_banned);
  SamplingLists lists;
  lists.first_bias = static_cast<const int32_t*>(device_first_bias.data());
  lists.first_banned = static_cast<const int32_t*>(device_first_banned.data());
  lists.banned_ids = static_cast<const int32_t*>(device_banned.data());
  lists.bias_ids = static_cast<const int32_t*>(device_bias_ids.data());
  lists.biases = static_cast<const float*>(device_biases.data());
  const auto step = [&](int64_t count) {
    backend().matmul(x.tensor().slice_rows(0, count), *w, Tensor(), out.tensor().slice_rows(0, count));
    backend().sample(logits.tensor(), 600, static_cast<const SamplingRow*>(device_rows.data()), ids.tensor(),
                     logprobs.tensor(), lists);
    backend().synchronize();
  };
  const int64_t measured = backend().num_compiled_kernels();
  EXPECT_GE(measured, 4) << "16, 32, 64 and 128 rows";
  step(8);
  const int64_t available = backend().available_memory_bytes();
  for (const int64_t count : {8, 17, 32, 40, 64, 100, 128}) step(count);
  EXPECT_EQ(backend().available_memory_bytes(), available);
  EXPECT_EQ(backend().num_compiled_kernels(), measured);
}

TEST(CudaOptionsTest, WhatIsNotThereIsRefused) {
  EXPECT_EQ(create_cuda_backend({.device = 4096}).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(create_cuda_backend({.device = 0, .activation_dtype = DType::i32}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace trireme::testing
