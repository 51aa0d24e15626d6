// The CUDA kernels' own sources, run on the processor, against naive loops in double.

#include "kernels/cuda/ops.h"

#include <gtest/gtest.h>

#include <cmath>
#include <tuple>

#include "kernels/cuda/few_rows.h"
#include "kernels/cuda/last_tokens.h"
#include "kernels/cuda/rope_kv.h"
#include "tests/kernels/cuda/device_tensor.h"
#include "tests/simt/grid.h"

namespace trireme::testing {
namespace {

class CudaOpsTest : public ::testing::TestWithParam<std::tuple<DType, simt::Order>> {
 protected:
  void SetUp() override { simt::set_options({std::get<1>(GetParam()), random_(), 0}); }
  void TearDown() override { simt::set_options({}); }
  DType dtype() const { return std::get<0>(GetParam()); }
  DeviceTensor random_tensor(int64_t rows, int64_t cols, float scale = 1) {
    return DeviceTensor(dtype(), rows, cols, random_values(random_, rows * cols, scale));
  }

  std::mt19937 random_{std::random_device{}()};
};

std::vector<double> normalized(const std::vector<float>& x, const std::vector<float>& weight, double eps) {
  std::vector<double> out;
  for (size_t row = 0; row < x.size(); row += weight.size()) {
    double squares = 0;
    for (size_t i = 0; i < weight.size(); ++i) squares += double{x[row + i]} * x[row + i];
    const double factor = 1 / std::sqrt(squares / static_cast<double>(weight.size()) + eps);
    for (size_t i = 0; i < weight.size(); ++i) out.push_back(x[row + i] * factor * weight[i]);
  }
  return out;
}

TEST_P(CudaOpsTest, RmsNormNormalizesEachRow) {
  for (const int64_t cols : {1, 7, 8, 96, 1031, 2048, 5120, 9000}) {
    SCOPED_TRACE(cols);
    const DeviceTensor x = random_tensor(3, cols, 4), out(dtype(), 3, cols);
    const DeviceTensor weight(DType::f32, 1, cols, random_values(random_, cols));
    cuda::rms_norm(nullptr, x, weight, 1e-5f, out);
    expect_near(out.values(), normalized(x.values(), weight.values(), 1e-5), rounding(dtype()) + 1e-5, 1e-6);
    cuda::rms_norm(nullptr, x, weight, 1e-5f, x);
    EXPECT_EQ(x.values(), out.values()) << "in place";
  }
}

TEST_P(CudaOpsTest, AddRmsNormKeepsTheSum) {
  for (const int64_t cols : {5, 64, 1000, 4096, 9000}) {
    SCOPED_TRACE(cols);
    const DeviceTensor x = random_tensor(2, cols), residual = random_tensor(2, cols), out(dtype(), 2, cols);
    const DeviceTensor weight(DType::f32, 1, cols, random_values(random_, cols));
    const std::vector<float> a = x.values(), b = residual.values();
    std::vector<double> sum(a.size());
    for (size_t i = 0; i < a.size(); ++i) sum[i] = double{a[i]} + b[i];
    cuda::add_rms_norm(nullptr, x, residual, weight, 1e-6f, out);
    expect_near(residual.values(), sum, rounding(dtype()), 0);
    expect_near(out.values(), normalized(residual.values(), weight.values(), 1e-6), rounding(dtype()) + 1e-5,
                1e-6);
  }
}

TEST_P(CudaOpsTest, ARowsBitsDoNotDependOnTheOthers) {
  const int64_t cols = 1536;
  const DeviceTensor all = random_tensor(5, cols), out(dtype(), 5, cols), alone(dtype(), 1, cols);
  const DeviceTensor weight(DType::f32, 1, cols, random_values(random_, cols));
  cuda::rms_norm(nullptr, all, weight, 1e-5f, out);
  cuda::rms_norm(nullptr, all.tensor().slice_rows(3, 1), weight, 1e-5f, alone);
  const std::vector<float> values = out.values();
  EXPECT_EQ(alone.values(), std::vector<float>(values.begin() + 3 * cols, values.begin() + 4 * cols));
}

TEST_P(CudaOpsTest, AddAdds) {
  for (const int64_t cols : {1, 8, 257, 4096}) {
    SCOPED_TRACE(cols);
    const DeviceTensor x = random_tensor(3, cols), y = random_tensor(3, cols);
    const std::vector<float> a = x.values(), b = y.values();
    std::vector<double> sum(a.size());
    for (size_t i = 0; i < a.size(); ++i) sum[i] = double{a[i]} + b[i];
    cuda::add(nullptr, x, y);
    expect_near(x.values(), sum, rounding(dtype()), 0);
  }
}

TEST_P(CudaOpsTest, SiluMulGates) {
  for (const int64_t cols : {1, 8, 100, 2816}) {
    SCOPED_TRACE(cols);
    const DeviceTensor gate_up = random_tensor(3, 2 * cols, 8), out(dtype(), 3, cols);
    const std::vector<float> in = gate_up.values();
    std::vector<double> wanted;
    for (int64_t row = 0; row < 3; ++row) {
      for (int64_t i = 0; i < cols; ++i) {
        const double gate = in[row * 2 * cols + i], up = in[row * 2 * cols + cols + i];
        wanted.push_back(gate / (1 + std::exp(-gate)) * up);
      }
    }
    cuda::silu_mul(nullptr, gate_up, out);
    expect_near(out.values(), wanted, rounding(dtype()) + 1e-5, 1e-7);
  }
}

TEST_P(CudaOpsTest, SiluOfLargeNumbersIsFinite) {
  const DeviceTensor gate_up(dtype(), 1, 4, {-200, 200, 2, 2}), out(dtype(), 1, 2);
  cuda::silu_mul(nullptr, gate_up, out);
  EXPECT_EQ(out.values(), (std::vector<float>{0, 400}));
}

TEST_P(CudaOpsTest, EmbeddingGathersItsRowsAndZeroesTheOthers) {
  for (const DType table_dtype : {DType::f32, DType::bf16, DType::f16}) {
    for (const int64_t cols : {9, 64}) {
      const DeviceTensor table(table_dtype, 10, cols, random_values(random_, 10 * cols));
      const DeviceTensor ids(std::vector<int32_t>{20, 29, 30, 19, 25}), out(dtype(), 5, cols);
      cuda::embedding(nullptr, ids, table, 20, out);
      const std::vector<float> rows = table.values();
      std::vector<double> wanted(static_cast<size_t>(5 * cols));
      for (int64_t i = 0; i < cols; ++i) {
        wanted[i] = rows[i];
        wanted[cols + i] = rows[9 * cols + i];
        wanted[4 * cols + i] = rows[5 * cols + i];
      }
      expect_near(out.values(), wanted, rounding(dtype()), 1e-7);
    }
  }
}

TEST_P(CudaOpsTest, GatherRowsMovesThem) {
  const DeviceTensor x = random_tensor(6, 40), ids(std::vector<int32_t>{5, 0, 5}), out(dtype(), 3, 40);
  cuda::gather_rows(nullptr, x, ids, out);
  const std::vector<float> in = x.values(), got = out.values();
  for (int i = 0; i < 40; ++i) {
    EXPECT_EQ(got[i], in[5 * 40 + i]);
    EXPECT_EQ(got[40 + i], in[i]);
    EXPECT_EQ(got[80 + i], in[5 * 40 + i]);
  }
}

TEST_P(CudaOpsTest, FewRowsAreMultiplied) {
  for (const int64_t in : {1, 8, 100, 1024, 3096, 4096}) {
    for (const int64_t rows : {1, 3, 8}) {
      SCOPED_TRACE(::testing::Message() << rows << " rows of " << in);
      const int64_t out_features = 13;
      const DeviceTensor x = random_tensor(rows, in), weight = random_tensor(out_features, in);
      const DeviceTensor bias(DType::f32, 1, out_features, random_values(random_, out_features));
      const DeviceTensor out(dtype(), rows, out_features), plain(dtype(), rows, out_features);
      cuda::matmul_few_rows(nullptr, x, weight, bias, out);
      cuda::matmul_few_rows(nullptr, x, weight, Tensor(), plain);
      const std::vector<float> a = x.values(), w = weight.values(), b = bias.values();
      std::vector<double> wanted, without_bias;
      for (int64_t m = 0; m < rows; ++m) {
        for (int64_t n = 0; n < out_features; ++n) {
          double sum = 0;
          for (int64_t k = 0; k < in; ++k) sum += double{a[m * in + k]} * w[n * in + k];
          without_bias.push_back(sum);
          wanted.push_back(sum + b[n]);
        }
      }
      // Sums of `in` products of order one, each rounded to f32.
      const double absolute = 1e-6 * std::sqrt(static_cast<double>(in));
      expect_near(out.values(), wanted, rounding(dtype()) + 1e-6, absolute);
      expect_near(plain.values(), without_bias, rounding(dtype()) + 1e-6, absolute);
    }
  }
}

TEST_P(CudaOpsTest, ARowsProductDoesNotDependOnTheOthers) {
  const DeviceTensor x = random_tensor(8, 520), weight = random_tensor(6, 520), all(dtype(), 8, 6),
                     one(dtype(), 1, 6);
  cuda::matmul_few_rows(nullptr, x, weight, Tensor(), all);
  const std::vector<float> values = all.values();
  for (int m = 0; m < 8; ++m) {
    cuda::matmul_few_rows(nullptr, x.tensor().slice_rows(m, 1), weight, Tensor(), one);
    EXPECT_EQ(one.values(), std::vector<float>(values.begin() + m * 6, values.begin() + m * 6 + 6));
  }
}

class CudaFewRowsTest : public ::testing::TestWithParam<DType> {};

TEST_P(CudaFewRowsTest, AProductHasTheSameBitsWhereWarpsHaveSeveralFeatures) {
  std::mt19937 random(std::random_device{}());
  // In the last warp the features end before its own do. One whole batch of loads for each feature, and a
  // bit.
  for (const auto& [rows, out_features, in] :
       {std::tuple{2, cuda::kTwoFeatures + 3, 520}, {5, cuda::kFourFeatures + 5, 264}}) {
    SCOPED_TRACE(rows);
    const DeviceTensor x(GetParam(), rows, in, random_values(random, rows * in)),
        weight(GetParam(), out_features, in, random_values(random, out_features * in)),
        all(GetParam(), rows, out_features), part(GetParam(), rows, 16);
    cuda::matmul_few_rows(nullptr, x, weight, Tensor(), all);
    const std::vector<float> values = all.values();
    for (const int64_t first : {int64_t{0}, out_features / 2, out_features - 16}) {
      cuda::matmul_few_rows(nullptr, x, weight.tensor().slice_rows(first, 16), Tensor(), part);
      std::vector<float> wanted;
      for (int64_t m = 0; m < rows; ++m) {
        const auto begin = values.begin() + m * out_features + first;
        wanted.insert(wanted.end(), begin, begin + 16);
      }
      EXPECT_EQ(part.values(), wanted) << first;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(CudaOnCpu, CudaFewRowsTest, ::testing::Values(DType::bf16, DType::f16),
                         [](const auto& tested) { return std::string(dtype_name(tested.param)); });

struct RopeCase {
  int head_dim, rotary_dim, num_heads, num_kv_heads;
  bool qk_norm;
};

class CudaRopeTest : public CudaOpsTest {
 protected:
  /// What a head should become, in double.
  std::vector<double> rotated(const std::vector<float>& x, size_t begin, const RopeCase& c, int position,
                              const std::vector<float>& frequencies, const std::vector<float>& weight) {
    std::vector<double> head(x.begin() + begin, x.begin() + begin + c.head_dim);
    if (c.qk_norm) {
      double squares = 0;
      for (const double value : head) squares += value * value;
      for (int d = 0; d < c.head_dim; ++d) head[d] *= weight[d] / std::sqrt(squares / c.head_dim + 1e-6);
    }
    std::vector<double> out = head;
    for (int i = 0; i < c.rotary_dim / 2; ++i) {
      // The angle is a float, as in the models' own code.
      const double angle = static_cast<float>(position) * frequencies[i];
      const double a = head[i], b = head[i + c.rotary_dim / 2];
      out[i] = 1.25 * (a * std::cos(angle) - b * std::sin(angle));
      out[i + c.rotary_dim / 2] = 1.25 * (b * std::cos(angle) + a * std::sin(angle));
    }
    return out;
  }

  void check(const RopeCase& c) {
    const int block_size = 4, num_tokens = 3;
    const std::vector<int32_t> positions = {0, 5, 100000}, slots = {6, -1, 1};
    const int64_t q_cols = int64_t{c.num_heads} * c.head_dim, kv_cols = int64_t{c.num_kv_heads} * c.head_dim;
    const DeviceTensor qkv = random_tensor(num_tokens, q_cols + 2 * kv_cols);
    const Tensor q = qkv.tensor().slice_cols(0, q_cols), k = qkv.tensor().slice_cols(q_cols, kv_cols),
                 v = qkv.tensor().slice_cols(q_cols + kv_cols, kv_cols);
    const DeviceTensor keys(dtype(), 2, kv_cols * block_size), values(dtype(), 2, kv_cols * block_size);
    std::vector<float> frequencies;
    for (int i = 0; i < c.rotary_dim / 2; ++i)
      frequencies.push_back(static_cast<float>(std::pow(10000.0, -2.0 * i / c.rotary_dim)));
    const DeviceTensor inverse_frequencies(DType::f32, 1, c.rotary_dim / 2, frequencies);
    const DeviceTensor q_weight(DType::f32, 1, c.head_dim, random_values(random_, c.head_dim));
    const DeviceTensor k_weight(DType::f32, 1, c.head_dim, random_values(random_, c.head_dim));
    const DeviceTensor position_ids(positions), slot_ids(slots);
    RaggedBatch batch;
    batch.positions = position_ids;
    batch.slots = slot_ids;
    batch.num_tokens = num_tokens;
    RopeSpec rope{inverse_frequencies, 1.25f, c.rotary_dim};
    QkNormSpec norm;
    if (c.qk_norm) norm = {q_weight, k_weight, 1e-6f};
    const std::vector<float> before = qkv.values();
    cuda::rope_and_store_kv(
        nullptr, q, k, v, batch, rope, norm,
        {keys.tensor().data, values.tensor().data, c.num_kv_heads, c.head_dim, block_size});
    const std::vector<float> after = qkv.values(), stored_k = keys.values(), stored_v = values.values();
    const double relative = rounding(dtype(), 3) + 1e-5;
    // A normalized element, which may be as large as 10, is rounded before two of them are added up.
    const double absolute = relative * (c.qk_norm ? 8 : 1);
    const auto slice = [&](const std::vector<float>& all, size_t begin) {
      return std::vector<float>(all.begin() + begin, all.begin() + begin + c.head_dim);
    };
    for (int t = 0; t < num_tokens; ++t) {
      const size_t row = t * static_cast<size_t>(q_cols + 2 * kv_cols);
      for (int h = 0; h < c.num_heads; ++h) {
        const size_t begin = row + h * c.head_dim;
        expect_near(slice(after, begin),
                    rotated(before, begin, c, positions[t], frequencies, q_weight.values()), relative,
                    absolute);
      }
      if (slots[t] < 0) continue;
      for (int h = 0; h < c.num_kv_heads; ++h) {
        const size_t place =
            ((slots[t] / block_size * c.num_kv_heads + h) * block_size + slots[t] % block_size) *
            static_cast<size_t>(c.head_dim);
        const size_t begin = row + q_cols + h * c.head_dim;
        expect_near(slice(stored_k, place),
                    rotated(before, begin, c, positions[t], frequencies, k_weight.values()), relative,
                    absolute);
        EXPECT_EQ(slice(stored_v, place), slice(before, begin + kv_cols));
      }
    }
    int64_t num_written = 0;
    for (const float value : stored_k) num_written += !std::isnan(value);
    EXPECT_EQ(num_written, 2 * kv_cols) << "two of three tokens have a slot";
  }
};

TEST_P(CudaRopeTest, RotatesAndStores) {
  for (const RopeCase& c :
       {RopeCase{64, 64, 3, 1, false}, RopeCase{128, 128, 4, 2, true}, RopeCase{80, 32, 2, 2, false},
        RopeCase{8, 8, 9, 9, true}, RopeCase{256, 256, 1, 1, false}, RopeCase{96, 0, 1, 1, false}}) {
    SCOPED_TRACE(c.head_dim);
    check(c);
  }
}

TEST(CudaLastTokensTest, AreKeptBySlotAndStandInForNegativeIds) {
  constexpr int32_t kCount = 300;  // more than a block of threads has
  std::vector<int32_t> drawn, slots, ids, wanted;
  for (int32_t i = 0; i < kCount; ++i) {
    drawn.push_back(i % 7 == 0 ? -1 : 1000 + i);
    slots.push_back(i % 3 == 0 ? -1 : kCount - 1 - i);
    ids.push_back(i % 2 == 0 ? i : -1 - i);
    const int32_t drawn_by = kCount - 1 - i;  // into slot i
    const int32_t kept = drawn_by % 3 == 0 ? 5 : drawn_by % 7 == 0 ? 0 : 1000 + drawn_by;
    wanted.push_back(i % 2 == 0 ? i : kept);
  }
  const DeviceTensor last_tokens(std::vector<int32_t>(kCount, 5)), resolved(ids);
  cuda::keep_last_tokens(nullptr, DeviceTensor(drawn), DeviceTensor(slots), last_tokens);
  EXPECT_EQ(cudaStreamSynchronize(nullptr), cudaSuccess);
  cuda::resolve_last_tokens(nullptr, last_tokens, resolved);
  EXPECT_EQ(cudaStreamSynchronize(nullptr), cudaSuccess);
  const int32_t* got = resolved.tensor().as<int32_t>();
  EXPECT_EQ(std::vector<int32_t>(got, got + kCount), wanted);
}

constexpr DType kDTypes[] = {DType::f32, DType::bf16, DType::f16};

std::string case_name(const ::testing::TestParamInfo<std::tuple<DType, simt::Order>>& info) {
  constexpr const char* kNames[] = {"forward", "reverse", "shuffled", "eager"};
  return std::string(dtype_name(std::get<0>(info.param))) + "_" +
         kNames[static_cast<int>(std::get<1>(info.param))];
}

INSTANTIATE_TEST_SUITE_P(CudaOnCpu, CudaOpsTest,
                         ::testing::Combine(::testing::ValuesIn(kDTypes), ::testing::ValuesIn(simt::kOrders)),
                         case_name);
INSTANTIATE_TEST_SUITE_P(CudaOnCpu, CudaRopeTest,
                         ::testing::Combine(::testing::ValuesIn(kDTypes), ::testing::ValuesIn(simt::kOrders)),
                         case_name);

}  // namespace
}  // namespace trireme::testing
