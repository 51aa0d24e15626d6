#pragma once
// Sums of small tensors over the GPUs of one host: each rank puts its part where all can read it, tells them,
// waits to be told, and reads all parts itself. One exchange instead of the two of a ring or a tree, so short
// messages are faster; each rank reads n times the bytes, so long ones are not.

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "kernels/tensor.h"

namespace trireme::cuda {

inline constexpr int kOneShotMaxRanks = 8;

/// What a call needs to know of the ranks.
struct OneShotRanks {
  /// By rank: one_shot_memory_bytes(capacity) bytes of its device, zeroed before the first call, which this
  /// rank's device can read and write.
  void* memory[kOneShotMaxRanks] = {};
  int num_ranks = 0;  // 2, 4 or 8
  int rank = 0;
  size_t capacity = 0;  // bytes of the largest tensor, a multiple of kOneShotUnit
};

inline constexpr size_t kOneShotUnit = 16 * 1024;
size_t one_shot_memory_bytes(size_t capacity);

/// Whether `tensor` can be summed this way: contiguous, no larger than the capacity, a multiple of 16 bytes
/// at an address that is one.
bool fits_one_shot(const OneShotRanks& ranks, const Tensor& tensor);

/// tensor = sum over the ranks, in f32 and in the order of a tree over the ranks (neighbours first, as over
/// MPI), rounded once: the same bits on each. f32, f16 or bf16. Every rank makes the same calls in the same
/// order; one that does not is waited for without end.
void one_shot_all_reduce(cudaStream_t stream, const OneShotRanks& ranks, const Tensor& tensor);

}  // namespace trireme::cuda
