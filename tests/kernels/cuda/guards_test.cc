// Every barrier of the CUDA kernels is needed, and these tests would notice that one is missing.

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <utility>

#include "kernels/backend.h"
#include "kernels/cuda/draw.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/rope_kv.h"
#include "kernels/cuda/sampling.h"
#include "tests/kernels/cuda/attention_problem.h"
#include "tests/kernels/cuda/device_tensor.h"
#include "tests/kernels/cuda/proofs.h"

namespace trireme::testing {
namespace {

std::vector<float> run_rms_norm() {
  std::mt19937 random(1);
  const DeviceTensor x(DType::f32, 2, 1000, random_values(random, 2000)), out(DType::f32, 2, 1000);
  const DeviceTensor weight(DType::f32, 1, 1000, random_values(random, 1000));
  cuda::rms_norm(nullptr, x, weight, 1e-5f, out);
  return out.values();
}

std::vector<float> run_rope() {
  // Pairs that are no multiple of a warp apart, so that lanes need what other lanes have read.
  constexpr int kHeadDim = 80, kRotaryDim = 40, kNumHeads = 17;
  std::mt19937 random(2);
  const auto tensor = [&](int64_t rows, int64_t cols) {
    return DeviceTensor(DType::f32, rows, cols, random_values(random, rows * cols));
  };
  const DeviceTensor q = tensor(2, kNumHeads * kHeadDim), k = tensor(2, kHeadDim), v = tensor(2, kHeadDim);
  const DeviceTensor keys = tensor(1, kHeadDim * 16), values = tensor(1, kHeadDim * 16);
  const DeviceTensor frequencies = tensor(1, kRotaryDim / 2);
  const DeviceTensor positions(std::vector<int32_t>{3, 900}), slots(std::vector<int32_t>{0, 1});
  RaggedBatch batch;
  batch.positions = positions;
  batch.slots = slots;
  batch.num_tokens = 2;
  cuda::rope_and_store_kv(nullptr, q, k, v, batch, {frequencies, 1, kRotaryDim}, {},
                          {keys.tensor().data, values.tensor().data, 1, kHeadDim, 16});
  return q.values();
}

/// Chunks of four warps and contexts of several tiles and segments.
std::vector<float> run_attention(DType dtype) {
  std::mt19937 random(3);
  const AttentionShape shape{1, 2, 64, 16, {{40, 200}, {1, 150}}};
  AttentionSpec spec;
  spec.scale = 0.125f;
  return AttentionProblem(dtype, shape, random).run(spec);
}

std::vector<float> run_sampling() {
  constexpr int64_t kVocab = 2100;
  std::mt19937 random(4);
  std::vector<SamplingRow> rows(12);
  for (size_t r = 0; r < rows.size(); ++r) {
    if (r == 3) continue;  // greedy, without edits
    rows[r].temperature = r % 4 == 3 ? 0 : 1;
    rows[r].top_k = r % 3 == 0 ? 60 : 0;
    rows[r].top_p = r % 3 == 1 ? 0.8f : 1;
    rows[r].seed = r;
    rows[r].repetition_penalty = 1.5f;
    rows[r].num_biases = 40;
    rows[r].num_banned = 20;
  }
  std::vector<int32_t> words(rows.size() * sizeof(SamplingRow) / sizeof(int32_t)), bias_offsets, ban_offsets,
      lists;
  std::memcpy(words.data(), rows.data(), rows.size() * sizeof(SamplingRow));
  for (int32_t bias = 0, ban = 0; const SamplingRow& row : rows) {
    bias_offsets.push_back(std::exchange(bias, bias + row.num_biases));
    ban_offsets.push_back(std::exchange(ban, ban + row.num_banned));
  }
  // Some biased ids are banned too, and all are penalized, by other threads than bias them: the order counts.
  for (size_t i = 0; i < 40 * rows.size(); ++i) lists.push_back(static_cast<int32_t>(i * 53 % kVocab));
  std::vector<int32_t> counts(kVocab);
  for (int64_t i = 0; i < kVocab; ++i) counts[static_cast<size_t>(i)] = static_cast<int32_t>(i % 3);
  const int64_t num_rows = static_cast<int64_t>(rows.size());
  std::vector<float> x = random_values(random, num_rows * kVocab);
  for (float& value : x) value = std::round(2 * value) / 2;  // many are equal
  for (size_t r = 7; r < rows.size(); r += 4) {              // greedy: a ban that comes too late shows
    for (int32_t i = 0; i < rows[r].num_banned; ++i)
      x[r * kVocab + static_cast<size_t>(lists[static_cast<size_t>(ban_offsets[r] + i)])] = 90;
  }
  const DeviceTensor logits(DType::f32, num_rows, kVocab, x);
  const DeviceTensor edited(DType::f32, num_rows, kVocab),
      biases(DType::f32, 1, 40 * num_rows, std::vector<float>(static_cast<size_t>(40 * num_rows), 4.0f));
  const DeviceTensor device_rows(words), device_bias_offsets(bias_offsets), device_ban_offsets(ban_offsets),
      ids_of_lists(lists), device_counts(counts);
  const DeviceTensor slots(std::vector<int32_t>(rows.size(), 0)), ids(std::vector<int32_t>(rows.size(), -7));
  const DeviceTensor logprobs(DType::f32, 1, num_rows);
  cuda::SamplingInputs in;
  in.logits = logits;
  in.vocab_size = kVocab;
  in.rows = device_rows.tensor().as<const SamplingRow>();
  in.first_bias = device_bias_offsets.tensor().as<int32_t>();
  in.first_banned = device_ban_offsets.tensor().as<int32_t>();
  in.bias_ids = in.banned_ids = ids_of_lists.tensor().as<int32_t>();
  in.biases = biases.tensor().as<float>();
  in.token_counts = device_counts;
  in.slots = slots.tensor().as<int32_t>();
  in.edited = edited.tensor().as<float>();
  cuda::sample(nullptr, in, ids, logprobs);
  std::vector<float> result = ids.values();
  const std::vector<float> more = logprobs.values();
  result.insert(result.end(), more.begin(), more.end());
  return result;
}

/// Target and most likely log probabilities of rows without two equal logits.
std::vector<float> run_logprobs() {
  constexpr int64_t kVocab = 1500;
  std::mt19937 random(6);
  const auto backend = *create_cuda_backend({.activation_dtype = DType::f32});
  const DeviceTensor logits(DType::f32, 3, kVocab, random_values(random, 3 * kVocab)),
      ids(std::vector<int32_t>{3, 1400, 77}), targets(DType::f32, 1, 3),
      top_ids(std::vector<int32_t>(12, -7)), values(DType::f32, 3, 4);
  const DeviceTensor num_top(std::vector<int32_t>{4, 2, 3});
  const Tensor top(top_ids.tensor().data, DType::i32, 3, 4);
  backend->logprobs(logits, kVocab, num_top.tensor().as<const int32_t>(), ids, targets, top, values);
  backend->synchronize();
  std::vector<float> result = targets.values();
  for (const std::vector<float>& more : {top_ids.values(), values.values()})
    result.insert(result.end(), more.begin(), more.end());
  return result;
}

TEST(CudaGuardsTest, NoSourceIsForgotten) {
  expect_no_source_forgotten(kMeetingCalls, "expect_every_meeting_needed");
}

TEST(CudaGuardsTest, LogProbabilitiesNeedTheirBarriers) {
  expect_every_meeting_needed("logprobs.cu", run_logprobs);
}

TEST(CudaGuardsTest, SamplingNeedsItsBarriers) {
  expect_every_meeting_needed("sampling.cu", run_sampling);
  expect_every_meeting_needed("softmax.cuh", run_sampling);
}

TEST(CudaGuardsTest, ReductionsNeedTheirBarriers) { expect_every_meeting_needed("reduce.cuh", run_rms_norm); }

TEST(CudaGuardsTest, AttentionNeedsItsBarriersAndWaits) {
  expect_every_meeting_needed("attention.cu", [] { return run_attention(DType::bf16); });
  expect_every_meeting_needed("attention_generic.cu", [] { return run_attention(DType::f32); });
}

std::vector<float> run_draw() {
  const NormalQuantiles quantiles(1);
  const DeviceTensor table(DType::f32, 1, NormalQuantiles::kCount,
                           std::vector<float>(quantiles.values.begin(), quantiles.values.end()));
  const DeviceTensor out(DType::f32, 2, 300);
  cuda::draw(nullptr, {1, 300, 0, 0, &quantiles}, table.tensor().as<const float>(), out);
  return out.values();
}

TEST(CudaGuardsTest, DrawingNeedsItsBarrier) { expect_every_meeting_needed("draw.cu", run_draw); }

TEST(CudaGuardsTest, RotaryEmbeddingNeedsItsBarriers) { expect_every_meeting_needed("rope_kv.cu", run_rope); }

}  // namespace
}  // namespace trireme::testing
