#pragma once
// Numbers that every rank can make for every other one, so that a result is checked without another message.

#include <cmath>
#include <cstdint>

namespace trireme::client {

/// The finalizer of SplitMix64. Source: G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number
/// generators", OOPSLA 2014.
inline uint64_t mix_bits(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

struct CollectiveInput {
  uint64_t seed = 0;
  uint64_t call = 0;  // another one, other numbers

  /// In [-1, 1), a multiple of 2^-23.
  float value(int rank, int64_t index) const {
    const uint64_t stream = mix_bits(seed ^ mix_bits((call << 16) + static_cast<uint64_t>(rank)));
    const auto bits = static_cast<int64_t>(mix_bits(stream + static_cast<uint64_t>(index)) >> 40);
    return static_cast<float>(bits - (int64_t{1} << 23)) * 0x1p-23f;
  }

  /// Whether `got` is the sum over the ranks, in f32 and in any order: n - 1 additions round, each by at most
  /// half a unit of a partial sum that is at most the sum of the magnitudes. Source: N. Higham, "The accuracy
  /// of floating point summation", SIAM J. Sci. Comput. 14 (1993).
  bool is_sum(int num_ranks, int64_t index, float got) const {
    double sum = 0, magnitudes = 0;
    for (int rank = 0; rank < num_ranks; ++rank) {
      const double one = value(rank, index);
      sum += one;
      magnitudes += std::abs(one);
    }
    return std::abs(got - sum) <= 1.01 * (num_ranks - 1) * 0x1p-24 * magnitudes;
  }
};

}  // namespace trireme::client
