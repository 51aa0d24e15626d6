// Per-target helper, included once for each of Highway's targets.

#if defined(TRIREME_EXP_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TRIREME_EXP_INL_H_
#undef TRIREME_EXP_INL_H_
#else
#define TRIREME_EXP_INL_H_
#endif

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace trireme::cpu::HWY_NAMESPACE {

/// e^x within 2 units in the last place; 0 below -87.3, infinity above 88.7; NaN stays NaN (Highway's own Exp
/// makes it 0). e^x = 2^n * e^r with n = round(x / ln 2), |r| <= ln(2) / 2; the polynomial is that of Cephes'
/// expf.
template <class D, class V = hwy::HWY_NAMESPACE::Vec<D>>
inline V exp_f32(D d, V x) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::RebindToSigned<D> di;
  const auto low = hn::Set(d, -87.33654f), high = hn::Set(d, 88.72283f);
  const auto too_low = hn::Lt(x, low), too_high = hn::Gt(x, high);
  const auto clamped = hn::IfThenElse(too_low, low, hn::IfThenElse(too_high, high, x));
  const auto n = hn::Round(hn::Mul(clamped, hn::Set(d, 1.44269504088896341f)));
  auto r = hn::NegMulAdd(n, hn::Set(d, 0.693359375f), clamped);
  r = hn::NegMulAdd(n, hn::Set(d, -2.12194440e-4f), r);
  auto p = hn::Set(d, 1.9875691500e-4f);
  p = hn::MulAdd(p, r, hn::Set(d, 1.3981999507e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 8.3334519073e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 4.1665795894e-2f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.6666665459e-1f));
  p = hn::MulAdd(p, r, hn::Set(d, 5.0000001201e-1f));
  p = hn::Add(hn::MulAdd(p, hn::Mul(r, r), r), hn::Set(d, 1.0f));
  // 2^n in two halves, since n may be 128.
  const auto whole = hn::ConvertTo(di, n);
  const auto half = hn::ShiftRight<1>(whole);
  const auto bias = hn::Set(di, 127);
  const auto scale0 = hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(half, bias)));
  const auto scale1 = hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(hn::Sub(whole, half), bias)));
  // Multiplying by 1 is exact, so a NaN that became a strange scale is restored through p.
  const auto value = hn::Mul(hn::Mul(p, scale0), scale1);
  const auto infinity = hn::BitCast(d, hn::Set(di, 0x7f800000));
  return hn::IfThenElse(too_low, hn::Zero(d), hn::IfThenElse(too_high, infinity, value));
}

}  // namespace trireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
