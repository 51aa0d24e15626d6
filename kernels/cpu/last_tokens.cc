// What a step leaves for the next one, and copies.

#include <algorithm>
#include <cstring>

#include "kernels/cpu/cpu_backend.h"

namespace trireme::cpu {

void CpuBackend::do_copy(const Tensor& from, const Tensor& to) {
  const size_t width = dtype_bytes(to.dtype);
  for (int64_t row = 0; row < to.rows; ++row)
    std::memcpy(to.as<char>() + static_cast<size_t>(row * to.row_stride) * width,
                from.as<const char>() + static_cast<size_t>(row * from.row_stride) * width,
                static_cast<size_t>(to.cols) * width);
}

void CpuBackend::do_resolve_last_tokens(const Tensor& last_tokens, const Tensor& ids) {
  for (int64_t t = 0; t < ids.size(); ++t) {
    int32_t& id = ids.as<int32_t>()[t];
    if (id < 0) id = last_tokens.as<int32_t>()[-1 - id];
  }
}

void CpuBackend::do_keep_last_tokens(const Tensor& ids, const Tensor& slots, const Tensor& last_tokens) {
  for (int64_t i = 0; i < ids.size(); ++i) {
    const int32_t slot = slots.as<int32_t>()[i];
    if (slot >= 0) last_tokens.as<int32_t>()[slot] = std::max(ids.as<int32_t>()[i], 0);
  }
}

}  // namespace trireme::cpu
