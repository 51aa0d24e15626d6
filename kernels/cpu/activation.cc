// SwiGLU's elementwise half.

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/activation.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/cpu/exp-inl.h"

HWY_BEFORE_NAMESPACE();
namespace trireme::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

void silu_mul_row(const float* gate, const float* up, int64_t count, float* out) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto one = hn::Set(d, 1.0f);
  auto silu_mul = [&](auto g, auto u) {
    return hn::Mul(hn::Div(g, hn::Add(one, exp_f32(d, hn::Neg(g)))), u);
  };
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes)
    hn::StoreU(silu_mul(hn::LoadU(d, gate + i), hn::LoadU(d, up + i)), d, out + i);
  if (i < count) {  // the last elements in a vector of their own, so that each gets the same arithmetic
    HWY_ALIGN float g[hn::MaxLanes(d)] = {}, u[hn::MaxLanes(d)] = {}, o[hn::MaxLanes(d)];
    for (int64_t j = i; j < count; ++j) g[j - i] = gate[j], u[j - i] = up[j];
    hn::Store(silu_mul(hn::Load(d, g), hn::Load(d, u)), d, o);
    for (int64_t j = i; j < count; ++j) out[j] = o[j - i];
  }
}

}  // namespace trireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace trireme::cpu {
HWY_EXPORT(silu_mul_row);

void CpuBackend::do_silu_mul(const Tensor& gate_up, const Tensor& out) {
  const auto row = HWY_DYNAMIC_DISPATCH(silu_mul_row);
  parallel_ranges(threads_, out.rows, 2, [&](int, Range rows) {
    for (int64_t r = rows.begin; r < rows.end; ++r) {
      const float* gate = gate_up.as<float>() + r * gate_up.row_stride;
      row(gate, gate + out.cols, out.cols, out.as<float>() + r * out.row_stride);
    }
  });
}

}  // namespace trireme::cpu
#endif  // HWY_ONCE
