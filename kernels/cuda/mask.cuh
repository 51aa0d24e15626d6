#pragma once
// Conditions that keep threads from what is not theirs: tokens that a row must not see, elements beyond a
// row's end, rows beyond the batch, ids beyond the vocabulary. They have a name so that the tests on the
// processor can leave out one after the other; to a device they are the plain condition.

#include <cuda_runtime.h>

#include <type_traits>

namespace trireme::cuda {

#ifdef TRIREME_SIMT

inline bool mask(bool condition, std::source_location where = std::source_location::current()) {
  return simt::mask(condition, where);
}
template <typename Int>
bool mask_tail(Int i, std::type_identity_t<Int> count, std::type_identity_t<Int> step,
               std::source_location where = std::source_location::current()) {
  return simt::mask(i < count, where) && (i < count || i / step * step < count);
}
inline int mask_min(int value, int most, std::source_location where = std::source_location::current()) {
  return simt::mask(value <= most, where) ? value : most;
}

#else

__device__ __forceinline__ constexpr bool mask(bool condition) { return condition; }

/// i < count, as the condition of a loop whose threads begin at different i below `step` and go on by `step`.
/// Left out, all of them take part in the last round.
template <typename Int>
__device__ __forceinline__ constexpr bool mask_tail(Int i, std::type_identity_t<Int> count,
                                                    std::type_identity_t<Int> /*step*/) {
  return i < count;
}

/// min(value, most). Left out, the value.
__device__ __forceinline__ int mask_min(int value, int most) { return min(value, most); }

#endif

}  // namespace trireme::cuda
