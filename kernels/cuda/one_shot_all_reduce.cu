// See one_shot_all_reduce.h. A rank's memory: for each block the number of the last call (of this rank), then
// for each block and rank the number of that rank's last call, then two places for parts, which calls take in
// turns. Two are enough: a block that writes its part of call c + 2 has been told of call c + 1 by all ranks,
// whose blocks of the same index had then read the parts of call c. Source of the idea: the one-shot
// all-reduce of TensorRT-LLM and vLLM (vllm pull request 2192).

#include <algorithm>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/mask.cuh"
#include "kernels/cuda/one_shot_all_reduce.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/vector.cuh"

namespace trireme::cuda {
namespace {

// The same for every size: a block's place in the memory must not depend on it.
constexpr int kBlocks = 16;
constexpr int kThreads = 256;
constexpr size_t kPackBytes = 16;
constexpr size_t kHeaderBytes = 1024;
static_assert(kHeaderBytes >= sizeof(uint32_t) * kBlocks * (1 + kOneShotMaxRanks));
static_assert(kOneShotUnit % (kBlocks * kPackBytes) == 0);

__device__ __forceinline__ uint32_t* own_calls(void* memory) { return static_cast<uint32_t*>(memory); }
__device__ __forceinline__ uint32_t* calls_of(void* memory, unsigned block, unsigned rank) {
  return static_cast<uint32_t*>(memory) + kBlocks + block * kOneShotMaxRanks + rank;
}
/// Of this block, for call number `call`.
template <typename T>
__device__ __forceinline__ T* part_of(void* memory, uint32_t call, size_t capacity) {
  const size_t offset = (call % 2) * capacity + blockIdx.x * (capacity / kBlocks);
  return reinterpret_cast<T*>(static_cast<char*>(memory) + kHeaderBytes + offset);
}

/// A rank's memory by its number: an array that is not indexed at run time stays in registers.
template <int kRanks>
struct Peers {
  void* memory[kRanks];
};

/// Each block sums `block_elements` elements of `data`, the last ones what is left.
template <typename T, int kRanks>
__global__ void __launch_bounds__(kThreads)
    one_shot_kernel(Peers<kRanks> peers, void* own, unsigned rank, size_t capacity, T* data,
                    int64_t num_elements, int64_t block_elements) {
  constexpr int kWidth = kPackWidth<T>;
  const uint32_t call = own_calls(own)[blockIdx.x] + 1;
  data += blockIdx.x * block_elements;
  const int64_t left = num_elements - blockIdx.x * block_elements;
  const int count = static_cast<int>(left < block_elements ? (left > 0 ? left : 0) : block_elements);
  const int begin = static_cast<int>(threadIdx.x) * kWidth, step = static_cast<int>(blockDim.x) * kWidth;
  T* const part = part_of<T>(own, call, capacity);
  for (int i = begin; mask_tail(i, count, step); i += step) {
    float values[kWidth];
    load(data + i, values);
    store(part + i, values);
  }
  __syncthreads();
  // One instruction of several threads tells all ranks: each waits until what was written can be seen
  // everywhere, and one after the other these waits would add up.
  uint32_t* told = nullptr;
#pragma unroll
  for (unsigned peer = 0; peer < kRanks; ++peer) {
    if (threadIdx.x == peer) told = calls_of(peers.memory[peer], blockIdx.x, rank);
  }
  if (told != nullptr) publish(told, call);
  __syncthreads();  // all ranks are told before any is waited for
  if (mask(threadIdx.x < kRanks)) wait_until_published(calls_of(own, blockIdx.x, threadIdx.x), call);
  __syncthreads();
  for (int i = begin; mask_tail(i, count, step); i += step) {
    float sums[kRanks][kWidth];
#pragma unroll
    for (int peer = 0; peer < kRanks; ++peer)
      load(part_of<T>(peers.memory[peer], call, capacity) + i, sums[peer]);
#pragma unroll
    for (int distance = 1; distance < kRanks; distance *= 2) {
#pragma unroll
      for (int peer = 0; peer < kRanks; peer += 2 * distance) {
#pragma unroll
        for (int e = 0; e < kWidth; ++e) sums[peer][e] += sums[peer + distance][e];
      }
    }
    store(data + i, sums[0]);
  }
  if (threadIdx.x == 0) own_calls(own)[blockIdx.x] = call;
}

template <int kRanks>
void start(cudaStream_t stream, const OneShotRanks& ranks, const Tensor& tensor) {
  with_element_type(tensor.dtype, [&](auto element) {
    using T = decltype(element);
    constexpr int64_t kWidth = kPackWidth<T>;
    const int64_t packs = tensor.size() / kWidth;
    const int64_t block_elements = (packs + kBlocks - 1) / kBlocks * kWidth;
    Peers<kRanks> peers;
    std::copy_n(ranks.memory, kRanks, peers.memory);
    launch(stream, "one_shot_all_reduce", one_shot_kernel<T, kRanks>, dim3(kBlocks), dim3(kThreads), 0, peers,
           ranks.memory[ranks.rank], static_cast<unsigned>(ranks.rank), ranks.capacity, tensor.as<T>(),
           tensor.size(), block_elements);
  });
}

}  // namespace

size_t one_shot_memory_bytes(size_t capacity) { return kHeaderBytes + 2 * capacity; }

bool fits_one_shot(const OneShotRanks& ranks, const Tensor& tensor) {
  return tensor.contiguous() && tensor.bytes() <= ranks.capacity && tensor.bytes() % kPackBytes == 0 &&
         reinterpret_cast<uintptr_t>(tensor.data) % kPackBytes == 0;
}

void one_shot_all_reduce(cudaStream_t stream, const OneShotRanks& ranks, const Tensor& tensor) {
  TRIREME_CHECK(fits_one_shot(ranks, tensor));
  CHECK_EQ(ranks.capacity % kOneShotUnit, 0u);
  if (ranks.num_ranks == 2) return start<2>(stream, ranks, tensor);
  if (ranks.num_ranks == 4) return start<4>(stream, ranks, tensor);
  CHECK_EQ(ranks.num_ranks, 8);
  start<8>(stream, ranks, tensor);
}

}  // namespace trireme::cuda
