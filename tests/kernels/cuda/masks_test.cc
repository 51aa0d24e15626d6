// Every mask of the CUDA kernels is needed, and these tests would notice that one is missing. Masks of
// kernels that read logits: masks_of_logits_test.cc.

#include <gtest/gtest-spi.h>
#include <gtest/gtest.h>

#include <initializer_list>

#include "kernels/cuda/draw.h"
#include "kernels/cuda/few_rows.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/last_tokens.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/weight.h"
#include "tests/kernels/cuda/attention_problem.h"
#include "tests/kernels/cuda/device_tensor.h"
#include "tests/kernels/cuda/proofs.h"

namespace trireme::testing {
namespace {

std::vector<float> values_of(std::initializer_list<const DeviceTensor*> tensors) {
  std::vector<float> all;
  for (const DeviceTensor* tensor : tensors) {
    const std::vector<float> values = tensor->values();
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

/// Of f32.
class Tensors {
 public:
  DeviceTensor operator()(int64_t rows, int64_t cols) {
    return DeviceTensor(DType::f32, rows, cols, random_values(random_, rows * cols));
  }

 private:
  std::mt19937 random_{1};
};

// No multiple of what threads take in one round, but of 16 bytes.
constexpr int64_t kCols = 1000;

TEST(CudaMasksTest, NoSourceIsForgotten) {
  expect_no_source_forgotten(kMaskCalls, "expect_every_mask_needed");
}

void normalize(int64_t cols, std::vector<float>& all) {
  Tensors tensors;
  const DeviceTensor x = tensors(2, cols), residual = tensors(2, cols), weight = tensors(1, cols);
  const DeviceTensor out(DType::f32, 2, cols), added(DType::f32, 2, cols);
  cuda::rms_norm(nullptr, x, weight, 1e-5f, out);
  cuda::add_rms_norm(nullptr, x, residual, weight, 1e-5f, added);
  const std::vector<float> values = values_of({&out, &residual, &added});
  all.insert(all.end(), values.begin(), values.end());
}

TEST(CudaMasksTest, Norms) {
  // Fewer columns than threads take in one round, and more.
  expect_every_mask_needed("norm.cu", [] {
    std::vector<float> all;
    normalize(kCols, all);
    normalize(5 * kCols, all);
    return all;
  });
}

TEST(CudaMasksTest, SumsGatesAndGatheredRows) {
  expect_every_mask_needed("elementwise.cu", [] {
    Tensors tensors;
    const DeviceTensor x = tensors(2, kCols), y = tensors(2, kCols), gate_up = tensors(2, 2 * kCols),
                       table = tensors(10, kCols);
    const DeviceTensor gated(DType::f32, 2, kCols), rows(DType::f32, 5, kCols);
    cuda::add(nullptr, x, y);
    cuda::silu_mul(nullptr, gate_up, gated);
    // The rows before the first and behind the last are others'.
    cuda::embedding(nullptr, DeviceTensor(std::vector<int32_t>{20, 29, 30, 19, 25}), table, 20, rows);
    return values_of({&x, &gated, &rows});
  });
}

// More rows than blocks, and no multiple of them.
constexpr int64_t kManyRows = 1030;

TEST(CudaMasksTest, ConvertedRows) {
  expect_every_mask_needed("convert.cu", [] {
    const DeviceTensor source = Tensors()(kManyRows, 3), out(DType::bf16, kManyRows, 3);
    cuda::convert_rows(nullptr, source.tensor().data, DType::f32, out);
    return values_of({&out});
  });
}

TEST(CudaMasksTest, DrawnRows) {
  expect_every_mask_needed("draw.cu", [] {
    const NormalQuantiles quantiles(1);
    const DeviceTensor table(DType::f32, 1, NormalQuantiles::kCount,
                             std::vector<float>(quantiles.values.begin(), quantiles.values.end()));
    const DeviceTensor out(DType::f32, kManyRows, 3);
    cuda::draw(nullptr, {1, 3, 0, 0, &quantiles}, table.tensor().as<const float>(), out);
    return values_of({&out});
  });
}

/// Of two rows: the next loads are under way while these are multiplied.
std::vector<float> multiply(DType dtype, int64_t in_features, int64_t out_features) {
  std::mt19937 random(5);
  const DeviceTensor x(dtype, 2, in_features, random_values(random, 2 * in_features)),
      weight(dtype, out_features, in_features, random_values(random, out_features * in_features)),
      bias(DType::f32, 1, out_features, random_values(random, out_features)), out(dtype, 2, out_features);
  cuda::matmul_few_rows(nullptr, x, weight, bias, out);
  return out.values();
}

TEST(CudaMasksTest, ProductsOfFewRows) {
  expect_every_mask_needed("few_rows.cu", [] {
    std::vector<float> all = multiply(DType::f32, kCols, 13);
    // Warps have two features, but the last has one, and less to load than goes at once.
    const std::vector<float> more = multiply(DType::bf16, 8, cuda::kTwoFeatures + 1);
    all.insert(all.end(), more.begin(), more.end());
    return all;
  });
}

TEST(CudaMasksTest, LastTokens) {
  expect_every_mask_needed("last_tokens.cu", [] {
    constexpr int32_t kCount = 300;
    std::vector<int32_t> drawn, slots, ids;
    for (int32_t i = 0; i < kCount; ++i) {
      drawn.push_back(1000 + i);
      slots.push_back(i % 3 == 0 ? -1 : kCount - 1 - i);
      ids.push_back(i % 2 == 0 ? i : -1 - i);
    }
    const DeviceTensor last_tokens(std::vector<int32_t>(kCount, 5)), resolved(ids);
    cuda::keep_last_tokens(nullptr, DeviceTensor(drawn), DeviceTensor(slots), last_tokens);
    EXPECT_EQ(cudaStreamSynchronize(nullptr), cudaSuccess);
    cuda::resolve_last_tokens(nullptr, last_tokens, resolved);
    return values_of({&last_tokens, &resolved});
  });
}

TEST(CudaMasksTest, CountedTokens) {
  expect_every_mask_needed("token_counts.cu", [] {
    constexpr int32_t kCount = 300, kVocab = 50;
    const auto backend = *create_cuda_backend({.activation_dtype = DType::f32});
    const DeviceTensor zeros(std::vector<int32_t>(2 * kVocab));
    const Tensor counts(zeros.tensor().data, DType::i32, 2, kVocab);
    std::vector<int32_t> ids, slots;
    for (int32_t i = 0; i < kCount; ++i) {
      ids.push_back(1 + i % (kVocab - 1));
      slots.push_back(i % 5 == 0 ? -1 : i % 2);
    }
    backend->set_token_counts(counts, 1, ids.data(), kCount, ids.data(), kCount);
    for (int32_t i = 3; i < kCount; i += 7) ids[static_cast<size_t>(i)] = -1;
    const DeviceTensor device_ids(ids), device_slots(slots);
    backend->count_tokens(counts, device_slots.tensor().as<const int32_t>(), device_ids);
    backend->synchronize();
    return values_of({&zeros});
  });
}

TEST(CudaMasksTest, RotaryEmbedding) {
  // A part of each head is rotated; the second token has no place in the cache.
  constexpr int kHeadDim = 80, kRotaryDim = 40, kNumHeads = 17, kNumTokens = 3;
  expect_every_mask_needed("rope_kv.cu", [] {
    Tensors tensors;
    const DeviceTensor q = tensors(kNumTokens, kNumHeads * kHeadDim), k = tensors(kNumTokens, kHeadDim),
                       v = tensors(kNumTokens, kHeadDim), keys = tensors(1, kHeadDim * 16),
                       values = tensors(1, kHeadDim * 16), frequencies = tensors(1, kRotaryDim / 2),
                       q_weight = tensors(1, kHeadDim), k_weight = tensors(1, kHeadDim);
    const DeviceTensor positions(std::vector<int32_t>{3, 900, 5}), slots(std::vector<int32_t>{0, -1, 1});
    RaggedBatch batch;
    batch.positions = positions;
    batch.slots = slots;
    batch.num_tokens = kNumTokens;
    cuda::rope_and_store_kv(nullptr, q, k, v, batch, {frequencies, 1, kRotaryDim},
                            {q_weight, k_weight, 1e-6f},
                            {keys.tensor().data, values.tensor().data, 1, kHeadDim, 16});
    return values_of({&q, &keys, &values});
  });
}

/// A chunk of several warps beside a single token whose context is shared out, without and with a window, and
/// that token alone, with just the memory that its segments take.
std::vector<float> run_attention(DType dtype, int head_dim) {
  std::mt19937 random(3);
  const AttentionShape shape{1, 2, head_dim, 16, {{40, 200}, {1, 150}}, 0};
  const AttentionProblem problem(dtype, shape, random);
  AttentionSpec spec;
  spec.scale = 0.125f;
  std::vector<float> all = problem.run(spec);
  spec.window_left = 50;
  const std::vector<float> windowed = problem.run(spec);
  const std::vector<float> alone = problem.run(spec, true, {1, 1, 150});
  all.insert(all.end(), windowed.begin(), windowed.end());
  all.insert(all.end(), alone.begin(), alone.end());
  return all;
}

TEST(CudaMasksTest, AttentionOnTensorCores) {
  expect_every_mask_needed("attention.cu", [] { return run_attention(DType::bf16, 64); });
  // A tile of 80 columns is no multiple of what threads copy at once.
  expect_every_mask_needed("attention_tensor.cuh", [] { return run_attention(DType::bf16, 80); });
}

TEST(CudaMasksTest, PlainAttention) {
  expect_every_mask_needed("attention_generic.cu", [] { return run_attention(DType::f32, 40); });
}

void fill_rows(int64_t cols) {
  expect_every_mask_needed("gemm.cu", [cols] {
    const DeviceTensor bias = Tensors()(1, cols), out(DType::f32, 2, cols);
    cuda::fill_rows(nullptr, bias, out);
    return values_of({&out});
  });
}

TEST(CudaMasksTest, RowsOfABias) { fill_rows(300); }

TEST(CudaMasksTest, AMaskThatNobodyNeedsIsTold) {
  EXPECT_NONFATAL_FAILURE(fill_rows(256), "can be left out");
  EXPECT_NONFATAL_FAILURE(expect_every_mask_needed("norm.cu", [] { return std::vector<float>{1}; }),
                          "an operation has to come to all of them");
}

}  // namespace
}  // namespace trireme::testing
