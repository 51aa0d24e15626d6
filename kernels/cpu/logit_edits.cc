#include "kernels/cpu/logit_edits.h"

#include <algorithm>
#include <cmath>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/logit_edits.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace trireme::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// x[i] with the penalties of counts[i], bit 0 of which says "in the prompt" and the others how often in the
/// output.
void penalize_row(float* x, const int32_t* counts, int64_t count, const SamplingRow& row) {
  const hn::ScalableTag<float> d;
  const hn::RebindToSigned<decltype(d)> di;
  const auto zero = hn::Zero(d), most = hn::Set(d, std::numeric_limits<float>::max());
  const auto repetition = hn::Set(d, row.repetition_penalty);
  const auto presence = hn::Set(d, row.presence_penalty), frequency = hn::Set(d, row.frequency_penalty);
  const auto penalized = [&](auto v, auto seen) {
    const auto in_output = hn::ConvertTo(d, hn::ShiftRight<1>(seen));
    const auto repeated = hn::IfThenElse(hn::Gt(v, zero), hn::Div(v, repetition), hn::Mul(v, repetition));
    auto p = hn::IfThenElse(hn::RebindMask(d, hn::Ne(seen, hn::Zero(di))), repeated, v);
    const auto used = hn::Gt(in_output, zero);
    p = hn::Sub(p, hn::IfThenElseZero(used, hn::Add(hn::Mul(in_output, frequency), presence)));
    return hn::IfThenElse(hn::IsInf(v), v, hn::Max(hn::Neg(most), hn::Min(p, most)));
  };
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes)
    hn::StoreU(penalized(hn::LoadU(d, x + i), hn::LoadU(di, counts + i)), d, x + i);
  if (i == count) return;
  HWY_ALIGN float rest[hn::MaxLanes(d)] = {};
  HWY_ALIGN int32_t seen[hn::MaxLanes(di)] = {};
  std::copy(x + i, x + count, rest);
  std::copy(counts + i, counts + count, seen);
  hn::Store(penalized(hn::Load(d, rest), hn::Load(di, seen)), d, rest);
  std::copy(rest, rest + (count - i), x + i);
}

}  // namespace trireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace trireme::cpu {
HWY_EXPORT(penalize_row);

EditReader::EditReader(const SamplingRow* rows, int64_t first, const SamplingLists& lists)
    : rows_(rows), lists_(lists) {
  while (row_ < first) next();
}

RowEdits EditReader::next() {
  const SamplingRow& row = rows_[row_];
  RowEdits edits;
  if (row.num_biases > 0) {
    edits.bias_ids = lists_.bias_ids + bias_;
    edits.biases = lists_.biases + bias_;
  }
  if (row.num_banned > 0) edits.banned_ids = lists_.banned_ids + banned_;
  if (row.has_penalties()) {
    const Tensor& counts = lists_.token_counts;
    edits.counts = counts.as<int32_t>() + lists_.slots[row_] * counts.row_stride;
  }
  bias_ += row.num_biases;
  banned_ += row.num_banned;
  ++row_;
  return edits;
}

void edit_logits(const float* x, int64_t count, const SamplingRow& row, const RowEdits& edits, float* out) {
  constexpr float kMost = std::numeric_limits<float>::max();
  std::copy(x, x + count, out);
  for (int32_t i = 0; i < row.num_biases; ++i) {
    float& biased = out[edits.bias_ids[i]];
    if (!std::isinf(biased)) biased = std::clamp(biased + edits.biases[i], -kMost, kMost);
  }
  if (edits.counts != nullptr) HWY_DYNAMIC_DISPATCH(penalize_row)(out, edits.counts, count, row);
  for (int32_t i = 0; i < row.num_banned; ++i)
    out[edits.banned_ids[i]] = -std::numeric_limits<float>::infinity();
}

}  // namespace trireme::cpu
#endif  // HWY_ONCE
