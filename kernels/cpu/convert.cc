#include "kernels/cpu/convert.h"

#include <algorithm>
#include <cstring>

#include "kernels/check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/convert.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace trireme::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

void f32_to_bf16_row(const float* source, uint16_t* destination, int64_t count) {
  const hn::ScalableTag<uint32_t> du;
  const hn::Rebind<uint16_t, decltype(du)> dh;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(du));
  const auto one = hn::Set(du, 1), half = hn::Set(du, 0x7fff), quiet = hn::Set(du, 0x40);
  const auto magnitude = hn::Set(du, 0x7fffffff), infinity = hn::Set(du, 0x7f800000);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto bits = hn::LoadU(du, reinterpret_cast<const uint32_t*>(source + i));
    const auto high = hn::ShiftRight<16>(bits);
    const auto rounded = hn::ShiftRight<16>(hn::Add(hn::Add(bits, half), hn::And(high, one)));
    const auto is_nan = hn::Gt(hn::And(bits, magnitude), infinity);
    hn::StoreU(hn::TruncateTo(dh, hn::IfThenElse(is_nan, hn::Or(high, quiet), rounded)), dh, destination + i);
  }
  for (; i < count; ++i) destination[i] = f32_to_bf16(source[i]);
}

void bf16_to_f32_row(const uint16_t* source, float* destination, int64_t count) {
  const hn::ScalableTag<uint32_t> du;
  const hn::Rebind<uint16_t, decltype(du)> dh;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(du));
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    hn::StoreU(hn::ShiftLeft<16>(hn::PromoteTo(du, hn::LoadU(dh, source + i))), du,
               reinterpret_cast<uint32_t*>(destination + i));
  }
  for (; i < count; ++i) destination[i] = bf16_to_f32(source[i]);
}

void f16_to_f32_row(const uint16_t* source, float* destination, int64_t count) {
  const hn::ScalableTag<float> df;
  const hn::Rebind<hwy::float16_t, decltype(df)> dh;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(df));
  const auto* halves = reinterpret_cast<const hwy::float16_t*>(source);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    hn::StoreU(hn::PromoteTo(df, hn::LoadU(dh, halves + i)), df, destination + i);
  }
  if (i < count) {
    HWY_ALIGN hwy::float16_t from[hn::MaxLanes(df)] = {};
    HWY_ALIGN float to[hn::MaxLanes(df)];
    std::copy(halves + i, halves + count, from);
    hn::Store(hn::PromoteTo(df, hn::Load(dh, from)), df, to);
    std::copy(to, to + (count - i), destination + i);
  }
}

}  // namespace trireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace trireme::cpu {
HWY_EXPORT(f32_to_bf16_row);
HWY_EXPORT(bf16_to_f32_row);
HWY_EXPORT(f16_to_f32_row);

void convert(const void* source, DType source_dtype, void* destination, DType destination_dtype,
             int64_t count) {
  if (source_dtype == destination_dtype) {
    std::memcpy(destination, source, static_cast<size_t>(count) * dtype_bytes(source_dtype));
    return;
  }
  TRIREME_CHECK(destination_dtype == DType::f32 || destination_dtype == DType::bf16);
  const auto* halves = static_cast<const uint16_t*>(source);
  if (destination_dtype == DType::f32) {
    auto* out = static_cast<float*>(destination);
    if (source_dtype == DType::bf16) return HWY_DYNAMIC_DISPATCH(bf16_to_f32_row)(halves, out, count);
    TRIREME_CHECK(source_dtype == DType::f16);
    return HWY_DYNAMIC_DISPATCH(f16_to_f32_row)(halves, out, count);
  }
  auto* out = static_cast<uint16_t*>(destination);
  if (source_dtype == DType::f32)
    return HWY_DYNAMIC_DISPATCH(f32_to_bf16_row)(static_cast<const float*>(source), out, count);
  TRIREME_CHECK(source_dtype == DType::f16);
  for (int64_t begin = 0; begin < count; begin += 256) {
    float wide[256];
    const int64_t part = count - begin < 256 ? count - begin : 256;
    HWY_DYNAMIC_DISPATCH(f16_to_f32_row)(halves + begin, wide, part);
    HWY_DYNAMIC_DISPATCH(f32_to_bf16_row)(wide, out + begin, part);
  }
}

}  // namespace trireme::cpu
#endif  // HWY_ONCE
