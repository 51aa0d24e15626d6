#pragma once

#include <cstdint>

namespace trireme::cpu {

/// The least multiple of `multiple` that is not below `value`.
inline int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

}  // namespace trireme::cpu
