// Rotary embedding, the KV cache and attention, against naive loops in double.

#include <algorithm>
#include <numeric>
#include <random>

#include "tests/kernels/backend_fixture.h"

namespace trireme::testing {
namespace {

struct Shape {
  int num_heads = 4, num_kv_heads = 2, head_dim = 16, block_size = 16, rotary_dim = 16;
  DType kv_dtype = DType::f32;
  AttentionSpec spec{0.25f, -1, 0};
  bool qk_norm = false;
  int64_t q_cols() const { return int64_t{num_heads} * head_dim; }
  int64_t kv_cols() const { return int64_t{num_kv_heads} * head_dim; }
};

/// A sequence as a model would see it: q, k, v of every token before normalization and rotation.
struct Sequence {
  int64_t length;
  std::vector<float> q, k, v;
};

struct Norms {
  std::vector<float> q, k;
  float eps = 1e-6f;
};

std::vector<float> inverse_frequencies(const Shape& shape) {
  std::vector<float> values;
  for (int i = 0; i < shape.rotary_dim / 2; ++i)
    values.push_back(static_cast<float>(std::pow(10000.0, -2.0 * i / shape.rotary_dim)));
  return values;
}

/// Heads of one token, normalized and rotated in double (the angle is an f32 product, as the contract says).
std::vector<double> naive_heads(const Shape& shape, const std::vector<float>& x, int64_t cols, int64_t token,
                                int64_t position, const std::vector<float>& norm, double eps) {
  std::vector<double> row(x.begin() + token * cols, x.begin() + (token + 1) * cols);
  const auto frequencies = inverse_frequencies(shape);
  const int pairs = shape.rotary_dim / 2;
  for (int64_t head = 0; head < cols; head += shape.head_dim) {
    if (!norm.empty()) {
      double squares = 0;
      for (int i = 0; i < shape.head_dim; ++i) squares += row[head + i] * row[head + i];
      for (int i = 0; i < shape.head_dim; ++i)
        row[head + i] *= norm[i] / std::sqrt(squares / shape.head_dim + eps);
    }
    for (int i = 0; i < pairs; ++i) {
      const double angle = static_cast<float>(position) * frequencies[i];
      const double a = row[head + i], b = row[head + pairs + i];
      row[head + i] = a * std::cos(angle) - b * std::sin(angle);
      row[head + pairs + i] = b * std::cos(angle) + a * std::sin(angle);
    }
  }
  return row;
}

/// Attention of every token of a sequence: values and the magnitude its tolerance is relative to.
struct Naive {
  std::vector<double> out, magnitude;
};
Naive naive_attention(const Shape& shape, const Sequence& sequence, const Norms& norms, DType dtype) {
  std::vector<std::vector<double>> q, k;  // rounded as a device does that keeps them
  for (int64_t t = 0; t < sequence.length; ++t) {
    q.push_back(naive_heads(shape, sequence.q, shape.q_cols(), t, t, norms.q, norms.eps));
    k.push_back(naive_heads(shape, sequence.k, shape.kv_cols(), t, t, norms.k, norms.eps));
    for (double& value : q.back()) value = round_to(static_cast<float>(value), dtype);
    for (double& value : k.back()) value = round_to(static_cast<float>(value), shape.kv_dtype);
  }
  Naive naive;
  const int group = shape.num_heads / shape.num_kv_heads;
  for (int64_t t = 0; t < sequence.length; ++t) {
    for (int h = 0; h < shape.num_heads; ++h) {
      const int64_t kv = h / group * shape.head_dim;
      const int64_t first = shape.spec.window_left < 0 ? 0 : std::max<int64_t>(0, t - shape.spec.window_left);
      std::vector<double> p;
      double maximum = -INFINITY;
      for (int64_t s = first; s <= t; ++s) {
        double score = 0;
        for (int i = 0; i < shape.head_dim; ++i) score += q[t][h * shape.head_dim + i] * k[s][kv + i];
        score *= shape.spec.scale;
        if (shape.spec.logit_softcap > 0)
          score = shape.spec.logit_softcap * std::tanh(score / shape.spec.logit_softcap);
        p.push_back(score);
        maximum = std::max(maximum, score);
      }
      double sum = 0;
      for (double& score : p) sum += score = std::exp(score - maximum);
      for (int i = 0; i < shape.head_dim; ++i) {
        double out = 0, magnitude = 0;
        for (int64_t s = first; s <= t; ++s) {
          const double value = round_to(sequence.v[s * shape.kv_cols() + kv + i], shape.kv_dtype);
          out += p[s - first] / sum * value;
          magnitude += p[s - first] / sum * std::abs(value);
        }
        naive.out.push_back(out);
        naive.magnitude.push_back(magnitude);
      }
    }
  }
  return naive;
}

/// Part of a step: tokens [begin, end) of a sequence.
struct Chunk {
  const Sequence* sequence;
  int id;  // its block table
  int64_t begin, end;
};

class AttentionTest : public BackendTest {
 protected:
  /// What a cache may hold.
  std::vector<DType> kv_dtypes() const {
    return on_cuda() ? std::vector<DType>{dtype()} : std::vector<DType>{DType::f32, DType::bf16};
  }
  /// Heads of 64 elements, in place of small ones, where they go to tensor cores.
  Shape plain_shape() const {
    Shape shape;
    shape.kv_dtype = kv_dtypes()[0];
    if (!on_cuda() || dtype() == DType::f32) return shape;
    shape.head_dim = shape.rotary_dim = 64;
    shape.spec.scale = 0.125f;
    return shape;
  }
  Sequence random_sequence(const Shape& shape, int64_t length, uint32_t seed) const {
    return {length, activations(length * shape.q_cols(), seed),
            activations(length * shape.kv_cols(), seed + 1), activations(length * shape.kv_cols(), seed + 2)};
  }

  /// A cache and shuffled block tables for up to `num_sequences` sequences of `max_length` tokens. Blocks
  /// hold NaN before they are first written, where `poison` can reach: through stored tokens.
  void start(const Shape& shape, int num_sequences, int64_t max_length, uint32_t seed = 7) {
    shape_ = shape;
    blocks_per_sequence_ = (max_length + shape.block_size - 1) / shape.block_size;
    const int64_t blocks = blocks_per_sequence_ * num_sequences + 3;
    KvCacheSpec spec{2, shape.num_kv_heads, shape.head_dim, shape.block_size, shape.kv_dtype};
    auto cache = backend().create_kv_cache(spec, blocks);
    ASSERT_TRUE(cache.ok()) << cache.status();
    cache_ = *std::move(cache);
    std::vector<int32_t> order(static_cast<size_t>(blocks));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937(seed));
    tables_.clear();
    for (int s = 0; s < num_sequences; ++s)
      tables_.emplace_back(order.begin() + s * blocks_per_sequence_,
                           order.begin() + (s + 1) * blocks_per_sequence_);
  }

  /// Runs one step and returns the attention output of its tokens, in order. q_out takes q after rotation.
  std::vector<float> step(const std::vector<Chunk>& chunks, const Norms& norms = {}, int layer = 1,
                          std::vector<float>* q_out = nullptr) {
    std::vector<float> q, k, v;
    std::vector<int32_t> positions, slots, cu = {0}, contexts, tables;
    int64_t max_query = 0, max_context = 0;
    for (const Chunk& chunk : chunks) {
      const Sequence& s = *chunk.sequence;
      q.insert(q.end(), s.q.begin() + chunk.begin * shape_.q_cols(),
               s.q.begin() + chunk.end * shape_.q_cols());
      k.insert(k.end(), s.k.begin() + chunk.begin * shape_.kv_cols(),
               s.k.begin() + chunk.end * shape_.kv_cols());
      v.insert(v.end(), s.v.begin() + chunk.begin * shape_.kv_cols(),
               s.v.begin() + chunk.end * shape_.kv_cols());
      for (int64_t t = chunk.begin; t < chunk.end; ++t) {
        positions.push_back(static_cast<int32_t>(t));
        slots.push_back(tables_[chunk.id][t / shape_.block_size] * shape_.block_size +
                        static_cast<int32_t>(t % shape_.block_size));
      }
      cu.push_back(static_cast<int32_t>(positions.size()));
      contexts.push_back(static_cast<int32_t>(chunk.end));
      std::vector<int32_t> table = tables_[chunk.id];
      for (size_t b = 0; b < table.size(); ++b)  // entries beyond the context are not to be looked at
        if (static_cast<int64_t>(b) * shape_.block_size >= chunk.end) table[b] = -99999999;
      tables.insert(tables.end(), table.begin(), table.end());
      max_query = std::max(max_query, chunk.end - chunk.begin);
      max_context = std::max(max_context, chunk.end);
    }
    const int64_t tokens = static_cast<int64_t>(positions.size()), seqs = static_cast<int64_t>(chunks.size());
    // Tensor cores take what is aligned to pairs.
    const int64_t odd = shape_.block_size % 2;
    const DeviceMatrix dq = upload(q, tokens, shape_.q_cols(), 2 + odd),
                       dk = upload(k, tokens, shape_.kv_cols(), 1),
                       dv = upload(v, tokens, shape_.kv_cols(), 2),
                       out = empty(tokens, shape_.q_cols(), 4 + odd);
    const DeviceMatrix dpositions = upload_ints(positions, 1, tokens), dslots = upload_ints(slots, 1, tokens),
                       dcu = upload_ints(cu, 1, seqs + 1), dcontexts = upload_ints(contexts, 1, seqs),
                       dtables = upload_ints(tables, seqs, blocks_per_sequence_);
    const RaggedBatch batch{dpositions.tensor(), dslots.tensor(), dcu.tensor(), dcontexts.tensor(),
                            dtables.tensor(),    tokens,          seqs,         max_query,
                            max_context};
    const auto frequencies = inverse_frequencies(shape_);
    const DeviceMatrix dfrequencies = upload_f32(frequencies, 1, static_cast<int64_t>(frequencies.size()));
    const RopeSpec rope{dfrequencies.tensor(), 1, shape_.rotary_dim};
    QkNormSpec norm;
    const DeviceMatrix dqn = upload_f32(norms.q, norms.q.empty() ? 0 : 1, shape_.head_dim),
                       dkn = upload_f32(norms.k, norms.k.empty() ? 0 : 1, shape_.head_dim);
    if (!norms.q.empty()) norm = {dqn.tensor(), dkn.tensor(), norms.eps};
    backend().rope_and_store_kv(dq.tensor(), dk.tensor(), dv.tensor(), batch, rope, norm, *cache_, layer);
    backend().attention(dq.tensor(), *cache_, layer, batch, shape_.spec, out.tensor());
    if (q_out != nullptr) *q_out = dq.floats();
    return out.floats();
  }

  void expect_naive(const Shape& shape, const std::vector<int64_t>& lengths, const Norms& norms,
                    const std::string& what) {
    const int64_t longest = *std::max_element(lengths.begin(), lengths.end());
    start(shape, static_cast<int>(lengths.size()), longest);
    std::vector<Sequence> sequences;
    for (size_t i = 0; i < lengths.size(); ++i)
      sequences.push_back(random_sequence(shape, lengths[i], static_cast<uint32_t>(10 * i + 1)));
    std::vector<Chunk> chunks;
    std::vector<double> want, tolerances;
    for (size_t i = 0; i < lengths.size(); ++i) {
      chunks.push_back({&sequences[i], static_cast<int>(i), 0, lengths[i]});
      const Naive naive = naive_attention(shape, sequences[i], norms, dtype());
      want.insert(want.end(), naive.out.begin(), naive.out.end());
      for (const double magnitude : naive.magnitude) {
        // Rotated keys may fall on the other side of a bf16 rounding border than the reference's: half a unit
        // of 2^-8 in single elements of k.
        const bool narrow_keys = !on_cuda() && shape.kv_dtype == DType::bf16;
        // Elements of normalized heads may be as large as 10. One that is rounded to the other side moves a
        // score by several units of the usual ones, and all that the softmax makes of it.
        const double sharper = norms.q.empty() ? 1 : 8;
        tolerances.push_back(sharper * magnitude * (narrow_keys ? 4e-3 : tolerance().attention) + 1e-7);
      }
    }
    expect_close(step(chunks, norms), want, tolerances, what);
  }

  Shape shape_;
  int64_t blocks_per_sequence_ = 0;
  std::unique_ptr<KvCache> cache_;
  std::vector<std::vector<int32_t>> tables_;
};
TRIREME_INSTANTIATE_BACKENDS(AttentionTest);

TEST_P(AttentionTest, EqualsNaiveLoopsAtManyShapes) {
  struct Heads {
    int q, kv, dim;
  };
  for (const DType kv_dtype : kv_dtypes()) {
    for (const Heads heads : {Heads{1, 1, 2},
                              {3, 1, 10},
                              {4, 4, 16},
                              {8, 2, 64},
                              {6, 2, 80},
                              {2, 1, 96},
                              {5, 5, 63},
                              {9, 1, 128}}) {
      for (const int block_size : sizes<int>({16, 5, 32}, {16, 5})) {
        Shape shape;
        shape.num_heads = heads.q;
        shape.num_kv_heads = heads.kv;
        shape.head_dim = heads.dim;
        shape.rotary_dim = heads.dim / 2 * 2;
        shape.block_size = block_size;
        shape.kv_dtype = kv_dtype;
        shape.spec.scale = 1 / std::sqrt(static_cast<float>(heads.dim));
        expect_naive(shape, sizes<int64_t>({1, 3, 17, 65, 111}, {1, 17, 111}), {},
                     std::string(dtype_name(kv_dtype)) + " heads " + std::to_string(heads.q) + "/" +
                         std::to_string(heads.kv) + " dim " + std::to_string(heads.dim) + " block " +
                         std::to_string(block_size));
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_P(AttentionTest, EqualsNaiveLoopsAcrossTilesAndSegments) {
  Shape shape = plain_shape();
  shape.num_heads = 2;
  shape.num_kv_heads = 1;
  shape.block_size = 24;
  expect_naive(shape, sizes<int64_t>({2500, 300}, {600, 300}), {}, "long");
}

TEST_P(AttentionTest, WindowSoftcapPartialRotationAndQkNorm) {
  for (const DType kv_dtype : kv_dtypes()) {
    Shape shape = plain_shape();
    shape.kv_dtype = kv_dtype;
    shape.rotary_dim = 6;
    const float scale = shape.spec.scale;
    for (const int window : sizes<int>({0, 1, 7, 100, 300}, {0, 7, 200})) {
      shape.spec = {1.2f * scale, window, 0};
      expect_naive(shape, sizes<int64_t>({1, 9, 520}, {1, 9, 300}), {}, "window " + std::to_string(window));
    }
    shape.spec = {6 * scale, -1, 2.5f};
    expect_naive(shape, sizes<int64_t>({1, 9, 300}, {1, 9, 100}), {}, "softcap");
    const Norms norms{normal_values(shape.head_dim, 91), normal_values(shape.head_dim, 92), 1e-5f};
    shape.spec = {2 * scale, 20, 30};
    expect_naive(shape, sizes<int64_t>({1, 9, 300}, {1, 9, 100}), norms, "norms");
  }
}

TEST_P(AttentionTest, RotationChangesQInPlace) {
  Shape shape = plain_shape();
  shape.rotary_dim = 10;
  start(shape, 1, 40);
  const Sequence sequence = random_sequence(shape, 40, 3);
  const Norms norms{normal_values(shape.head_dim, 91), normal_values(shape.head_dim, 92), 1e-5f};
  std::vector<float> q;
  step({{&sequence, 0, 0, 40}}, norms, 0, &q);
  std::vector<double> want;
  for (int64_t t = 0; t < 40; ++t) {
    const auto row = naive_heads(shape, sequence.q, shape.q_cols(), t, t, norms.q, norms.eps);
    want.insert(want.end(), row.begin(), row.end());
  }
  std::vector<double> tolerances;  // one rounding after the norm, one after the rotation
  for (const double value : want)
    tolerances.push_back(2e-5 + tolerance().rounding * (4 + 2 * std::abs(value)) * (on_cuda() ? 1 : 0));
  expect_close(q, want, tolerances, "q");
}

TEST_P(AttentionTest, BitsDoNotDependOnChunkingOrBatchMates) {
  for (const DType kv_dtype : kv_dtypes()) {
    for (const int window : {-1, 290}) {
      Shape shape = plain_shape();
      shape.num_heads = 6;
      if (!on_cuda()) shape.head_dim = 32;
      shape.kv_dtype = kv_dtype;
      shape.spec.window_left = window;
      const int64_t length = backends_are_slow() ? 300 : 530;
      const Sequence sequence = random_sequence(shape, length, 1), other = random_sequence(shape, length, 50);
      start(shape, 1, length);
      const auto whole = step({{&sequence, 0, 0, length}});
      for (const int64_t chunk : sizes<int64_t>({1, 7, 64, 255, 256, 300}, {60, 256})) {
        start(shape, 2, length, static_cast<uint32_t>(chunk));
        std::vector<float> pieces;
        int64_t other_at = 0;
        for (int64_t at = 0; at < length; at += chunk) {
          const int64_t end = std::min(length, at + chunk);
          std::vector<Chunk> chunks = {{&sequence, 0, at, end}};
          if (other_at < length && (at / chunk) % 2 == 0) {  // another sequence before it, in chunks of 3
            chunks.insert(chunks.begin(), {&other, 1, other_at, std::min(length, other_at + 3)});
            other_at = std::min(length, other_at + 3);
          }
          const auto out = step(chunks);
          pieces.insert(pieces.end(), out.end() - (end - at) * shape.q_cols(), out.end());
        }
        expect_same_bits(pieces, whole,
                         std::string(dtype_name(kv_dtype)) + " chunks of " + std::to_string(chunk) +
                             ", window " + std::to_string(window));
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_P(AttentionTest, LongDecodeHasTheBitsOfPrefill) {
  Shape shape = plain_shape();
  shape.num_heads = 2;
  shape.num_kv_heads = 1;
  const int64_t length = backends_are_slow() ? 600 : 6200;
  const Sequence sequence = random_sequence(shape, length, 1);
  start(shape, 1, length);
  const auto whole = step({{&sequence, 0, 0, length}});
  for (const int64_t position :
       sizes<int64_t>({255, 256, 2047, 2048, 4095, 4500, 6199}, {255, 256, 511, 512, 599}))
    expect_same_bits(step({{&sequence, 0, position, position + 1}}),
                     rows_of(whole, shape.q_cols(), position, 1), "position " + std::to_string(position));
}

TEST_P(AttentionTest, WhatOtherSequencesLeftInBlocksIsNotSeen) {
  for (const DType kv_dtype : kv_dtypes()) {
    Shape shape = plain_shape();
    shape.kv_dtype = kv_dtype;
    const Sequence sequence = random_sequence(shape, 37, 1);
    start(shape, 1, 64);
    const auto clean = step({{&sequence, 0, 0, 37}});
    Sequence poison = random_sequence(shape, 64, 9);
    std::fill(poison.k.begin(), poison.k.end(), std::nanf(""));
    std::fill(poison.v.begin(), poison.v.end(), std::nanf(""));
    step({{&poison, 0, 0, 64}});
    expect_same_bits(step({{&sequence, 0, 0, 37}}), clean, "over NaN");
  }
}

TEST_P(AttentionTest, NanInASequenceComesThroughAndStaysThere) {
  const Shape shape = plain_shape();
  Sequence broken = random_sequence(shape, 20, 1);
  const Sequence whole = random_sequence(shape, 20, 5);
  broken.q[19 * shape.q_cols()] = std::nanf("");
  start(shape, 2, 32);
  const auto out = step({{&broken, 0, 0, 20}, {&whole, 1, 0, 20}});
  EXPECT_TRUE(std::isnan(out[19 * shape.q_cols()]));
  for (int64_t i = 0; i < 19 * shape.q_cols(); ++i) ASSERT_FALSE(std::isnan(out[i]));
  for (int64_t i = 20 * shape.q_cols(); i < 40 * shape.q_cols(); ++i) ASSERT_FALSE(std::isnan(out[i]));
}

TEST_P(AttentionTest, LayersAreApart) {
  const Shape shape = plain_shape();
  start(shape, 1, 20);
  const Sequence a = random_sequence(shape, 20, 1), b = random_sequence(shape, 20, 9);
  const auto first = step({{&a, 0, 0, 20}}, {}, 0);
  step({{&b, 0, 0, 20}}, {}, 1);
  Sequence last = a;
  const auto again = step({{&last, 0, 19, 20}}, {}, 0);
  expect_same_bits(again, rows_of(first, shape.q_cols(), 19, 1), "layer 0");
}

TEST_P(AttentionTest, BlockBytesAreWhatTheCacheTakes) {
  const KvCacheSpec spec{3, 2, 64, 16, DType::bf16};
  EXPECT_EQ(backend().kv_block_bytes(spec), size_t{3} * 2 * 2 * 64 * 16 * 2);
}

}  // namespace
}  // namespace trireme::testing
