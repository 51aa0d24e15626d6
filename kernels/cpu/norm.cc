// RMSNorm, alone or after adding to the residual. A row is summed by one thread in one order.

#include <cmath>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/norm.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/cpu/sum_squares-inl.h"

HWY_BEFORE_NAMESPACE();
namespace trireme::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

void rms_norm_row(const float* x, const float* weight, float eps, int64_t count, float* out) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const float factor = 1.0f / std::sqrt(sum_squares(x, count) / static_cast<float>(count) + eps);
  const auto factors = hn::Set(d, factor);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes)
    hn::StoreU(hn::Mul(hn::Mul(hn::LoadU(d, x + i), factors), hn::LoadU(d, weight + i)), d, out + i);
  for (; i < count; ++i) out[i] = x[i] * factor * weight[i];
}

void add_row(float* x, const float* y, int64_t count) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes)
    hn::StoreU(hn::Add(hn::LoadU(d, x + i), hn::LoadU(d, y + i)), d, x + i);
  for (; i < count; ++i) x[i] += y[i];
}

}  // namespace trireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace trireme::cpu {
HWY_EXPORT(rms_norm_row);
HWY_EXPORT(add_row);

namespace {
constexpr int64_t kSerialRows = 4;
}

void CpuBackend::do_rms_norm(const Tensor& x, const Tensor& weight, float eps, const Tensor& out) {
  const auto row = HWY_DYNAMIC_DISPATCH(rms_norm_row);
  parallel_ranges(threads_, x.rows, kSerialRows, [&](int, Range rows) {
    for (int64_t r = rows.begin; r < rows.end; ++r)
      row(x.as<float>() + r * x.row_stride, weight.as<float>(), eps, x.cols,
          out.as<float>() + r * out.row_stride);
  });
}

void CpuBackend::do_add_rms_norm(const Tensor& x, const Tensor& residual, const Tensor& weight, float eps,
                                 const Tensor& out) {
  const auto add = HWY_DYNAMIC_DISPATCH(add_row);
  const auto row = HWY_DYNAMIC_DISPATCH(rms_norm_row);
  parallel_ranges(threads_, x.rows, kSerialRows, [&](int, Range rows) {
    for (int64_t r = rows.begin; r < rows.end; ++r) {
      float* sum = residual.as<float>() + r * residual.row_stride;
      add(sum, x.as<float>() + r * x.row_stride, x.cols);
      row(sum, weight.as<float>(), eps, x.cols, out.as<float>() + r * out.row_stride);
    }
  });
}

void CpuBackend::do_add(const Tensor& x, const Tensor& y) {
  const auto add = HWY_DYNAMIC_DISPATCH(add_row);
  parallel_ranges(threads_, x.rows, kSerialRows, [&](int, Range rows) {
    for (int64_t r = rows.begin; r < rows.end; ++r)
      add(x.as<float>() + r * x.row_stride, y.as<float>() + r * y.row_stride, x.cols);
  });
}

}  // namespace trireme::cpu
#endif  // HWY_ONCE
