// As masks_test.cc, of kernels that read logits: what lies beyond the vocabulary must not be seen.

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <utility>

#include "kernels/backend.h"
#include "kernels/cuda/sampling.h"
#include "tests/kernels/cuda/device_tensor.h"
#include "tests/kernels/cuda/proofs.h"

namespace trireme::testing {
namespace {

void append(std::vector<float>& all, const DeviceTensor& tensor) {
  const std::vector<float> values = tensor.values();
  all.insert(all.end(), values.begin(), values.end());
}

// Likelier than every token.
constexpr float kPaddingLogit = 6;

/// [num_rows, vocab + padding]; many of a row are equal.
std::vector<float> padded_logits(int64_t num_rows, int64_t vocab, int64_t padding) {
  std::mt19937 random(4);
  std::vector<float> all;
  for (int64_t row = 0; row < num_rows; ++row) {
    for (const float value : random_values(random, vocab)) all.push_back(std::round(2 * value) / 2);
    all.insert(all.end(), static_cast<size_t>(padding), kPaddingLogit);
  }
  return all;
}

void run_logprobs(int64_t vocab, int64_t padding, std::vector<float>& all) {
  const auto backend = *create_cuda_backend({.activation_dtype = DType::f32});
  const DeviceTensor logits(DType::f32, 3, vocab + padding, padded_logits(3, vocab, padding));
  const DeviceTensor ids(std::vector<int32_t>{2, -1, 0}), targets(DType::f32, 1, 3),
      top_ids(std::vector<int32_t>(12, -7)), values(DType::f32, 3, 4);
  const DeviceTensor num_top(std::vector<int32_t>{4, 2, 4});
  const Tensor top(top_ids.tensor().data, DType::i32, 3, 4);
  backend->logprobs(logits, vocab, num_top.tensor().as<const int32_t>(), ids, targets, top, values);
  backend->synchronize();
  for (const DeviceTensor* tensor : {&targets, &top_ids, &values}) append(all, *tensor);
}

/// With more asked for than a vocabulary has, too.
std::vector<float> run_all_logprobs() {
  std::vector<float> all;
  run_logprobs(1500, 100, all);
  run_logprobs(1500, 0, all);
  run_logprobs(3, 0, all);
  return all;
}

// More than a block has threads, and no multiple of a warp.
constexpr int64_t kVocab = 2100;
constexpr int64_t kNumRows = 16;

/// Cut by rank, by mass, not at all, greedy; the first, every fourth and the last with edits.
std::vector<SamplingRow> mixed_rows() {
  std::vector<SamplingRow> rows(kNumRows);
  for (size_t r = 0; r < rows.size(); ++r) {
    SamplingRow& row = rows[r];
    row.temperature = r == 7 ? 0.0f : 1.0f;
    row.top_k = r % 2 == 0 ? 60 : 0;
    row.top_p = r % 4 == 1 ? 0.8f : 1.0f;
    row.seed = r;
    if (r % 4 != 0 && r + 1 != rows.size()) continue;
    row.repetition_penalty = 1.5f;
    row.num_biases = 40;
    row.num_banned = 20;
  }
  return rows;
}

void run_sampling(int64_t padding, std::vector<float>& all) {
  const std::vector<SamplingRow> rows = mixed_rows();
  std::vector<int32_t> words(rows.size() * sizeof(SamplingRow) / sizeof(int32_t)), first_bias, first_banned;
  std::memcpy(words.data(), rows.data(), rows.size() * sizeof(SamplingRow));
  int32_t num_biases = 0, num_banned = 0;
  for (const SamplingRow& row : rows) {
    first_bias.push_back(std::exchange(num_biases, num_biases + row.num_biases));
    first_banned.push_back(std::exchange(num_banned, num_banned + row.num_banned));
  }
  std::vector<int32_t> list, counts;
  for (int32_t i = 0; i < num_biases; ++i) list.push_back(static_cast<int32_t>(i * 53 % kVocab));
  for (int32_t i = 0; i < kVocab; ++i) counts.push_back(i % 3);
  const DeviceTensor logits(DType::f32, kNumRows, kVocab + padding, padded_logits(kNumRows, kVocab, padding));
  const DeviceTensor edited(DType::f32, kNumRows, kVocab),
      biases(DType::f32, 1, num_biases, std::vector<float>(static_cast<size_t>(num_biases), 4.0f));
  const DeviceTensor device_rows(words), device_first_bias(first_bias), device_first_banned(first_banned),
      bias_ids(list), banned_ids(std::vector<int32_t>(list.begin(), list.begin() + num_banned)),
      device_counts(counts);
  const DeviceTensor slots(std::vector<int32_t>(rows.size(), 0)), ids(std::vector<int32_t>(rows.size(), -7));
  const DeviceTensor logprobs(DType::f32, 1, kNumRows);
  cuda::SamplingInputs in;
  in.logits = logits;
  in.vocab_size = kVocab;
  in.rows = device_rows.tensor().as<const SamplingRow>();
  in.first_bias = device_first_bias.tensor().as<int32_t>();
  in.first_banned = device_first_banned.tensor().as<int32_t>();
  in.bias_ids = bias_ids.tensor().as<int32_t>();
  in.banned_ids = banned_ids.tensor().as<int32_t>();
  in.biases = biases.tensor().as<float>();
  in.token_counts = device_counts;
  in.slots = slots.tensor().as<int32_t>();
  in.edited = edited.tensor().as<float>();
  cuda::sample(nullptr, in, ids, logprobs);
  append(all, ids);
  append(all, logprobs);
}

std::vector<float> run_all_sampling() {
  std::vector<float> all;
  run_sampling(60, all);
  run_sampling(0, all);
  return all;
}

TEST(CudaMasksTest, LogProbabilities) { expect_every_mask_needed("logprobs.cu", run_all_logprobs); }

TEST(CudaMasksTest, ReductionsOfRows) { expect_every_mask_needed("softmax.cuh", run_all_logprobs); }

TEST(CudaMasksTest, Sampling) { expect_every_mask_needed("sampling.cu", run_all_sampling); }

}  // namespace
}  // namespace trireme::testing
