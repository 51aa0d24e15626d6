#pragma once
// Random numbers that are the same with every standard library: its distributions are not.

#include <cstdint>
#include <random>

namespace trireme::client {

class PortableRandom {
 public:
  explicit PortableRandom(uint64_t seed) : engine_(seed) {}
  /// In [0, 1), 53 bits.
  double uniform() { return static_cast<double>(engine_() >> 11) * 0x1p-53; }
  /// In [0, bound), bound at most 2^32; even to within 2^-21.
  uint64_t below(uint64_t bound) { return static_cast<uint64_t>(uniform() * static_cast<double>(bound)); }

 private:
  std::mt19937_64 engine_;
};

}  // namespace trireme::client
