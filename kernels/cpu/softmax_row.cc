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

/// Calls body(vector, begin, lanes in use) for the elements of x; the last vector is filled up with `fill`.
template <class D, class Body>
HWY_INLINE void for_each_vector(D d, const float* x, int64_t count, float fill, Body&& body) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) body(hn::LoadU(d, x + i), i, lanes);
  if (i == count) return;
  HWY_ALIGN float rest[hn::MaxLanes(d)];
  std::fill(rest, rest + lanes, fill);
  std::copy(x + i, x + count, rest);
  body(hn::Load(d, rest), i, count - i);
}

template <class D, class V>
HWY_INLINE void store_some(D d, V v, float* to, int64_t count) {
  if (count == static_cast<int64_t>(hn::Lanes(d))) {
    hn::StoreU(v, d, to);
    return;
  }
  HWY_ALIGN float rest[hn::MaxLanes(d)];
  hn::Store(v, d, rest);
  std::copy(rest, rest + count, to);
}

constexpr float kLowest = -std::numeric_limits<float>::infinity();

double sum_exp_row(const float* x, int64_t count, float maximum) {
  const hn::ScalableTag<float> d;
  const auto shift = hn::Set(d, maximum);
  double total = 0;  // f32 sums are short, their sums are f64
  for (int64_t begin = 0; begin < count; begin += kRun) {
    auto sums = hn::Zero(d);
    for_each_vector(d, x + begin, std::min(kRun, count - begin), kLowest,
                    [&](auto v, int64_t, int64_t) { sums = hn::Add(sums, exp_f32(d, hn::Sub(v, shift))); });
    total += hn::GetLane(hn::SumOfLanes(d, sums));
  }
  return total;
}

double exp_weights_row(const float* x, int64_t count, float maximum, float inverse_temperature,
                       float* weights, Run* runs) {
  const hn::ScalableTag<float> d;
  const auto shift = hn::Set(d, maximum), factor = hn::Set(d, inverse_temperature);
  double total = 0;
  for (int64_t begin = 0; begin < count; begin += kRun, ++runs) {
    auto sums = hn::Zero(d), maxima = hn::Zero(d);
    for_each_vector(d, x + begin, std::min(kRun, count - begin), kLowest,
                    [&](auto v, int64_t i, int64_t used) {
                      const auto p = exp_f32(d, hn::Mul(hn::Sub(v, shift), factor));
                      sums = hn::Add(sums, p);
                      maxima = hn::Max(maxima, p);
                      store_some(d, p, weights + begin + i, used);
                    });
    *runs = {hn::GetLane(hn::SumOfLanes(d, sums)), hn::GetLane(hn::MaxOfLanes(d, maxima))};
    total += runs->sum;
  }
  return total;
}

double drop_below_row(float* weights, int64_t count, float at_least) {
  const hn::ScalableTag<float> d;
  const auto least = hn::Set(d, at_least);
  auto sums = hn::Zero(d);
  for_each_vector(d, weights, count, 0, [&](auto v, int64_t i, int64_t used) {
    const auto kept = hn::IfThenElseZero(hn::Ge(v, least), v);
    sums = hn::Add(sums, kept);
    store_some(d, kept, weights + i, used);
  });
  return hn::GetLane(hn::SumOfLanes(d, sums));
}

}  // namespace trireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace trireme::cpu {
HWY_EXPORT(find_maximum);
HWY_EXPORT(sum_exp_row);
HWY_EXPORT(exp_weights_row);
HWY_EXPORT(drop_below_row);

RowMaximum row_maximum(const float* x, int64_t count) { return HWY_DYNAMIC_DISPATCH(find_maximum)(x, count); }

double sum_exp(const float* x, int64_t count, float maximum) {
  return HWY_DYNAMIC_DISPATCH(sum_exp_row)(x, count, maximum);
}

double exp_weights(const float* x, int64_t count, float maximum, float inverse_temperature, float* weights,
                   Run* runs) {
  return HWY_DYNAMIC_DISPATCH(exp_weights_row)(x, count, maximum, inverse_temperature, weights, runs);
}

double drop_below(float* weights, int64_t count, float at_least) {
  return HWY_DYNAMIC_DISPATCH(drop_below_row)(weights, count, at_least);
}

}  // namespace trireme::cpu
#endif  // HWY_ONCE
