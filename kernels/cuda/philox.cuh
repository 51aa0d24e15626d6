#pragma once
// Philox4x32-10 on the device: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC
// 2011. The same numbers as kernels/cpu/philox.h, to which a test holds it.

#include <cuda_runtime.h>

#include <cstdint>

namespace trireme::cuda {

/// 53 random bits, the fraction of the uniform of a draw, in the high bits of the result.
__device__ __forceinline__ uint64_t sampling_fraction(uint64_t seed, uint32_t sample_index,
                                                      uint32_t output_index) {
  uint32_t c0 = sample_index, c1 = output_index, c2 = 0, c3 = 0;
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53} * c0, p1 = uint64_t{0xCD9E8D57} * c2;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(p1);
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return (uint64_t{c0} << 32 | c1) >> 11 << 11;
}

}  // namespace trireme::cuda
