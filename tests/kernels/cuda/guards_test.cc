// Every barrier of the CUDA kernels is needed, and these tests would notice that one is missing.

#include <gtest/gtest.h>

#include <functional>

#include "kernels/cuda/ops.h"
#include "kernels/cuda/rope_kv.h"
#include "tests/kernels/cuda/attention_problem.h"
#include "tests/kernels/cuda/device_tensor.h"
#include "tests/simt/grid.h"

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

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

/// Leaves out one meeting place of `op` after the other, and expects another result in one of the orders.
void expect_every_meeting_needed(const char* source, const std::function<std::vector<float>()>& op) {
  simt::set_options({});
  const std::vector<float> wanted = op();
  int num_places = 0;
  for (const std::string& place : simt::meeting_places()) {
    if (place.find(source) == std::string::npos) continue;
    ++num_places;
    bool noticed = false;
    for (const simt::Order order : {simt::Order::forward, simt::Order::reverse, simt::Order::shuffled}) {
      simt::set_options({order, 5, 0, place});
      noticed = noticed || !same_bits(op(), wanted);
    }
    EXPECT_TRUE(noticed) << place << " can be left out";
  }
  simt::set_options({});
  EXPECT_GT(num_places, 0) << source;
}

/// Chunks of four warps and contexts of several tiles and segments.
std::vector<float> run_attention(DType dtype) {
  std::mt19937 random(3);
  const AttentionShape shape{1, 2, 64, 16, {{40, 200}, {1, 150}}};
  AttentionSpec spec;
  spec.scale = 0.125f;
  return AttentionProblem(dtype, shape, random).run(spec);
}

TEST(CudaGuardsTest, ReductionsNeedTheirBarriers) {
  expect_every_meeting_needed("cuda/reduce.cuh", run_rms_norm);
}

TEST(CudaGuardsTest, AttentionNeedsItsBarriersAndWaits) {
  expect_every_meeting_needed("cuda/attention.cu", [] { return run_attention(DType::bf16); });
  expect_every_meeting_needed("cuda/attention_generic.cu", [] { return run_attention(DType::f32); });
}

TEST(CudaGuardsTest, RotaryEmbeddingNeedsItsBarriers) {
  expect_every_meeting_needed("cuda/rope_kv.cu", run_rope);
}

}  // namespace
}  // namespace trireme::testing
