// What is particular to the CPU backend: construction, memory, and that a warmed-up step allocates nothing.

#include "kernels/cpu/cpu_backend.h"

#include "tests/kernels/backend_fixture.h"

namespace trireme::testing {
namespace {

std::unique_ptr<Backend> make_backend(int threads) { return *create_cpu_backend({.num_threads = threads}); }

TEST(CpuBackendTest, SaysWhatItIs) {
  const auto backend = make_backend(3);
  EXPECT_EQ(backend->name(), "cpu");
  EXPECT_THAT(backend->description(), ::testing::HasSubstr("3 threads"));
  EXPECT_EQ(backend->activation_dtype(), DType::f32);
  EXPECT_GT(backend->available_memory_bytes(), 0);
}

TEST(CpuBackendTest, ANegativeNumberOfThreadsIsRefused) {
  EXPECT_EQ(create_cpu_backend({.num_threads = -1}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(create_cpu_backend({}).ok());
}

TEST(CpuBackendTest, MemoryThatIsNotThereIsRefused) {
  const auto backend = make_backend(1);
  EXPECT_EQ(backend->allocate(size_t{1} << 50).status().code(), absl::StatusCode::kResourceExhausted);
  const auto weight = backend->prepare_weight(1 << 20, 1 << 28, DType::f32);
  EXPECT_EQ(weight.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(weight.status().message()), ::testing::HasSubstr("[1048576, 268435456]"));
  EXPECT_EQ(backend->create_kv_cache({80, 8, 128, 16, DType::f32}, 1 << 28).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(backend->create_kv_cache({1, 1, 16, 16, DType::f16}, 1).status().code(),
            absl::StatusCode::kUnimplemented);
}

TEST(CpuBackendTest, AWeightTakesItsElementsAndPaddingOnly) {
  const auto backend = make_backend(2);
  EXPECT_EQ((*backend->prepare_weight(512, 1024, DType::f32))->finish()->bytes(), size_t{512} * 1024 * 4);
  if (!backend->check_compute_dtype(DType::bf16).ok()) return;
  EXPECT_EQ((*backend->prepare_weight(512, 1024, DType::bf16))->finish()->bytes(), size_t{512} * 1024 * 2);
  EXPECT_EQ((*backend->prepare_weight(65, 33, DType::bf16))->finish()->bytes(), size_t{128} * 64 * 2);
}

TEST(CpuBackendTest, AWarmedUpStepTakesNoMoreMemoryAndCompilesNothing) {
  const auto made = make_backend(2);
  auto& backend = dynamic_cast<cpu::CpuBackend&>(*made);
  ASSERT_TRUE(backend.reserve_workspace(64, 4, 96, 1000).ok());
  const auto weight = (*backend.prepare_weight(1000, 96, DType::f32))->finish();
  std::vector<float> x(64 * 97), logits(64 * 1000), logprobs(64);
  std::vector<int32_t> ids(64);
  const std::vector<SamplingRow> rows(64, SamplingRow{1, 5, 0.9f, 0, 1, 2, 3});
  auto step = [&](int64_t count) {
    const Tensor out(logits.data(), DType::f32, count, 1000);
    backend.matmul(Tensor(x.data(), DType::f32, count, 96, 97), *weight, Tensor(), out);
    backend.sample(out, 1000, rows.data(), Tensor(ids.data(), DType::i32, 1, count),
                   Tensor(logprobs.data(), DType::f32, 1, count));
  };
  for (const int64_t count : {1, 40, 64}) step(count);
  const size_t bytes = backend.workspace_bytes();
  const int64_t kernels = backend.num_compiled_kernels();
  for (const int64_t count : {1, 2, 17, 32, 40, 64}) step(count);
  EXPECT_EQ(backend.workspace_bytes(), bytes);
  EXPECT_EQ(backend.num_compiled_kernels(), kernels);
  step(50);
  EXPECT_EQ(backend.workspace_bytes(), bytes);
  EXPECT_LE(backend.num_compiled_kernels(),
            kernels + 1);  // where oneDNN multiplies: one for the new number of rows
}

// Checks of kernels/backend.cc: a mistake ends the process and prints both values.
class BackendCheckTest : public ::testing::Test {
 protected:
  BackendCheckTest() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
  Tensor f32(int64_t rows, int64_t cols) { return {memory_.data(), DType::f32, rows, cols}; }
  Tensor i32(int64_t count) { return {memory_.data(), DType::i32, 1, count}; }
  std::vector<float> memory_ = std::vector<float>(4096);
  std::unique_ptr<Backend> backend_ = make_backend(1);
};

TEST_F(BackendCheckTest, MatmulShapes) {
  const auto w = (*backend_->prepare_weight(8, 16, DType::f32))->finish();
  EXPECT_DEATH(backend_->matmul(f32(2, 17), *w, Tensor(), f32(2, 8)), "17 vs. 16");
  EXPECT_DEATH(backend_->matmul(f32(2, 16), *w, Tensor(), f32(3, 8)), "3 vs. 2");
  EXPECT_DEATH(backend_->matmul(f32(2, 16), *w, f32(1, 7), f32(2, 8)), "7 vs. 8");
  EXPECT_DEATH(backend_->matmul(Tensor(memory_.data(), DType::bf16, 2, 16), *w, Tensor(), f32(2, 8)),
               "bf16 vs. f32");
  EXPECT_DEATH(backend_->matmul(Tensor(memory_.data(), DType::f32, 2, 16, 15), *w, Tensor(), f32(2, 8)),
               "15 vs. 16");
  EXPECT_DEATH(backend_->matmul(Tensor(nullptr, DType::f32, 2, 16), *w, Tensor(), f32(2, 8)), "data");
}

TEST_F(BackendCheckTest, ElementwiseShapes) {
  EXPECT_DEATH(backend_->rms_norm(f32(2, 8), f32(1, 7), 0, f32(2, 8)), "7 vs. 8");
  EXPECT_DEATH(backend_->add_rms_norm(f32(2, 8), f32(2, 8), f32(1, 8), 0, f32(2, 8)), "residual.data");
  EXPECT_DEATH(backend_->add(f32(2, 8), f32(2, 9)), "9 vs. 8");
  EXPECT_DEATH(backend_->silu_mul(f32(2, 15), f32(2, 8)), "15 vs. 16");
  EXPECT_DEATH(backend_->gather_rows(f32(4, 8), i32(3), f32(2, 8)), "3 vs. 2");
}

TEST_F(BackendCheckTest, AttentionShapes) {
  auto cache = *backend_->create_kv_cache({2, 2, 16, 16, DType::f32}, 4);
  RaggedBatch batch{i32(3), i32(3), i32(2), i32(1), i32(1), 3, 1, 3, 3};
  EXPECT_DEATH(backend_->attention(f32(3, 48), *cache, 0, batch, {1, -1, 0}, f32(3, 48)), "16 vs. 0");
  EXPECT_DEATH(backend_->attention(f32(3, 64), *cache, 2, batch, {1, -1, 0}, f32(3, 64)), "2 vs. 2");
  EXPECT_DEATH(backend_->attention(f32(3, 64), *cache, 0, batch, {1, -2, 0}, f32(3, 64)), "-2 vs. -1");
  batch.max_context_len = 17;
  EXPECT_DEATH(backend_->attention(f32(3, 64), *cache, 0, batch, {1, -1, 0}, f32(3, 64)), "16 vs. 17");
  batch.max_context_len = 3;
  batch.slots = i32(4);
  EXPECT_DEATH(backend_->rope_and_store_kv(f32(3, 64), f32(3, 32), f32(3, 32), batch, {f32(1, 8), 1, 16}, {},
                                           *cache, 0),
               "4 vs. 3");
}

TEST_F(BackendCheckTest, SamplingShapes) {
  const SamplingRow row;
  EXPECT_DEATH(backend_->sample(f32(1, 8), 9, &row, i32(1), f32(1, 1)), "9 vs. 8");
  EXPECT_DEATH(backend_->sample(f32(2, 8), 8, &row, i32(1), f32(1, 2)), "1 vs. 2");
}

}  // namespace
}  // namespace trireme::testing
