#include "kernels/cpu/softmax_row.h"

#include <algorithm>
#include <cmath>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/softmax_row.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/cpu/exp-inl.h"

HWY_BEFORE_NAMESPACE();
namespace trireme::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

RowMaximum find_maximum(const float* x, int64_t count) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const float lowest = -std::numeric_limits<float>::infinity();
  auto maxima = hn::Set(d, lowest);
  auto unequal = hn::Ne(maxima, maxima);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto v = hn::LoadU(d, x + i);
    unequal = hn::Or(unequal, hn::Ne(v, v));
    maxima = hn::Max(maxima, v);
  }
  float maximum = hn::GetLane(hn::MaxOfLanes(d, maxima));
  bool has_nan = !hn::AllFalse(d, unequal);
  for (; i < count; ++i) {
    has_nan = has_nan || std::isnan(x[i]);
    maximum = std::max(maximum, x[i]);
  }
  if (has_nan) return {maximum, -1};
  return {maximum, std::find(x, x + count, maximum) - x};
}

double exp_sum(const float* x, int64_t count, float maximum, float inverse_temperature, float* weights) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto shift = hn::Set(d, maximum), factor = hn::Set(d, inverse_temperature);
  constexpr int64_t kRun = 1024;  // f32 sums are short, their sums are f64
  double total = 0;
  for (int64_t begin = 0; begin < count; begin += kRun) {
    const int64_t end = std::min(count, begin + kRun);
    auto sums = hn::Zero(d);
    int64_t i = begin;
    for (; i + lanes <= end; i += lanes) {
      const auto p = exp_f32(d, hn::Mul(hn::Sub(hn::LoadU(d, x + i), shift), factor));
      sums = hn::Add(sums, p);
      if (weights != nullptr) hn::StoreU(p, d, weights + i);
    }
    total += hn::GetLane(hn::SumOfLanes(d, sums));
    for (; i < end; ++i) {
      const float p = hn::GetLane(exp_f32(d, hn::Set(d, (x[i] - maximum) * inverse_temperature)));
      total += p;
      if (weights != nullptr) weights[i] = p;
    }
  }
  return total;
}

}  // namespace trireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace trireme::cpu {
HWY_EXPORT(find_maximum);
HWY_EXPORT(exp_sum);

RowMaximum row_maximum(const float* x, int64_t count) { return HWY_DYNAMIC_DISPATCH(find_maximum)(x, count); }

double exp_weights(const float* x, int64_t count, float maximum, float inverse_temperature, float* weights) {
  return HWY_DYNAMIC_DISPATCH(exp_sum)(x, count, maximum, inverse_temperature, weights);
}

}  // namespace trireme::cpu
#endif  // HWY_ONCE
