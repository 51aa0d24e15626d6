// Normalization and rotation of q and k, and storing of k and v. The cosines of a token are computed once and
// serve all its heads.

#include <cmath>
#include <vector>

#include "kernels/check.h"
#include "kernels/cpu/convert.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/kv_cache.h"
#include "kernels/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rope_kv.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/cpu/sum_squares-inl.h"

HWY_BEFORE_NAMESPACE();
namespace trireme::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// head = rms_norm(head) * weight.
void normalize_head(float* head, const float* weight, float eps, int64_t dim) {
  const float factor = 1.0f / std::sqrt(sum_squares(head, dim) / static_cast<float>(dim) + eps);
  for (int64_t i = 0; i < dim; ++i) head[i] = head[i] * factor * weight[i];
}

/// Pairs (i, i + pairs) turned by the angle whose cosine and sine are given.
void rotate_head(float* head, const float* cosines, const float* sines, int64_t pairs) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= pairs; i += lanes) {
    const auto a = hn::LoadU(d, head + i), b = hn::LoadU(d, head + pairs + i);
    const auto c = hn::LoadU(d, cosines + i), s = hn::LoadU(d, sines + i);
    hn::StoreU(hn::Sub(hn::Mul(a, c), hn::Mul(b, s)), d, head + i);
    hn::StoreU(hn::Add(hn::Mul(b, c), hn::Mul(a, s)), d, head + pairs + i);
  }
  for (; i < pairs; ++i) {
    const float a = head[i], b = head[pairs + i];
    head[i] = a * cosines[i] - b * sines[i];
    head[pairs + i] = b * cosines[i] + a * sines[i];
  }
}

}  // namespace trireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace trireme::cpu {
HWY_EXPORT(normalize_head);
HWY_EXPORT(rotate_head);

namespace {

constexpr int64_t kMaxPairs = 512;

void store_token(const CpuKvCache& cache, int layer, int32_t slot, const float* k, const float* v) {
  const KvLayout& layout = cache.layout();
  const int64_t dim = cache.spec().head_dim, block = slot / layout.block_size,
                token = slot % layout.block_size;
  CHECK_LT(block, cache.num_blocks());
  for (int64_t h = 0; h < layout.num_kv_heads; ++h, k += dim, v += dim) {
    const int64_t value = layout.value_offset() + token * layout.value_dim;
    if (layout.dtype == DType::f32) {
      float* head = cache.head<float>(layer, block, h);
      float* key = head + layout.key_offset(token, 0);
      for (int64_t i = 0; i < dim; ++i) key[i * kTokenGroup] = k[i];
      convert(v, DType::f32, head + value, DType::f32, dim);
    } else {
      uint16_t* head = cache.head<uint16_t>(layer, block, h);
      uint16_t* key = head + layout.key_offset(token, 0);
      for (int64_t i = 0; i < dim; ++i) key[i / 2 * (2 * kTokenGroup) + i % 2] = f32_to_bf16(k[i]);
      convert(v, DType::f32, head + value, DType::bf16, dim);
    }
  }
}

}  // namespace

void CpuBackend::do_rope_and_store_kv(const Tensor& q, const Tensor& k, const Tensor& v,
                                      const RaggedBatch& batch, const RopeSpec& rope, const QkNormSpec& norm,
                                      KvCache& cache, int layer) {
  const auto& kv = dynamic_cast<const CpuKvCache&>(cache);
  const int64_t dim = cache.spec().head_dim, pairs = rope.rotary_dim / 2;
  CHECK_LE(pairs, kMaxPairs);
  const auto normalize = HWY_DYNAMIC_DISPATCH(normalize_head);
  const auto rotate = HWY_DYNAMIC_DISPATCH(rotate_head);
  const float* frequencies = rope.inverse_frequencies.as<float>();
  parallel_ranges(threads_, batch.num_tokens, 4, [&](int, Range tokens) {
    float cosines[kMaxPairs], sines[kMaxPairs];
    for (int64_t t = tokens.begin; t < tokens.end; ++t) {
      const float position = static_cast<float>(batch.positions.as<int32_t>()[t]);
      for (int64_t i = 0; i < pairs; ++i) {
        const float angle = position * frequencies[i];
        cosines[i] = std::cos(angle) * rope.attention_factor;
        sines[i] = std::sin(angle) * rope.attention_factor;
      }
      auto heads = [&](const Tensor& x, const Tensor& weight) {
        float* row = x.as<float>() + t * x.row_stride;
        for (float* head = row; head < row + x.cols; head += dim) {
          if (weight.data != nullptr) normalize(head, weight.as<float>(), norm.eps, dim);
          rotate(head, cosines, sines, pairs);
        }
      };
      heads(q, norm.q_weight);
      heads(k, norm.k_weight);
      const int32_t slot = batch.slots.as<int32_t>()[t];
      if (slot >= 0)
        store_token(kv, layer, slot, k.as<float>() + t * k.row_stride, v.as<float>() + t * v.row_stride);
    }
  });
}

}  // namespace trireme::cpu
#endif  // HWY_ONCE
