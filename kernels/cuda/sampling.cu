// One block to a row of logits. Candidates are ordered by falling weight, equal ones by rising id; top-k and
// top-p each keep a prefix of that order. Its last member is found by descending through the digits of the
// weights, so nothing is sorted and nothing but a histogram is written.

#include "kernels/cuda/sampling.h"

#include <cfloat>

#include "kernels/check.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/mask.cuh"
#include "kernels/cuda/philox.cuh"
#include "kernels/cuda/shared.cuh"
#include "kernels/cuda/softmax.cuh"

namespace trireme::cuda {
namespace {

constexpr int kThreads = kRowThreads, kWarps = kRowWarps;
// Weights are at most 1: their bits are below 2^30. A first digit of 10 bits has eight bins to an octave, so
// that few threads meet in one.
constexpr int kWeightBits = 30, kDigitBits = 10, kBins = 1 << kDigitBits;
constexpr int kBinsEach = kBins / kThreads;
static_assert(kWeightBits % kDigitBits == 0 && kBins % kThreads == 0);
// Weights are at most 1. 2^17 of them, each below 2^40, stay below 2^57.
constexpr float kFixedOne = 1099511627776.0f;
using Mass = unsigned long long;

struct Shared {
  uint32_t low[kBins], high[kBins];  // halves of what is in the bins
  Mass sums[kWarps];
  RowShared row;
  // What one thread found for all.
  uint32_t digit;
  Mass rest;
  int chosen;
};

__device__ __forceinline__ Mass warp_sum(Mass value) {
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2)
    value += __shfl_xor_sync(kAllLanes, value, distance);
  return value;
}

/// The sum over the block, on every thread. What others read of shared.sums lies behind a barrier.
__device__ Mass block_total(Mass value, Shared& shared) {
  value = warp_sum(value);
  if (threadIdx.x % kWarpSize == 0) shared.sums[threadIdx.x / kWarpSize] = value;
  __syncthreads();
  Mass total = 0;
  for (int w = 0; w < kWarps; ++w) total += shared.sums[w];
  return total;
}

/// The weights of a row: 2^40 times e^((x - maximum) / temperature), as a float and as an integer.
struct Weights {
  const float* x;
  int count;
  float maximum, inverse_temperature;

  __device__ __forceinline__ float of(float logit) const {
    return expf((logit - maximum) * inverse_temperature);
  }
  __device__ __forceinline__ static Mass mass(float weight) { return static_cast<Mass>(weight * kFixedOne); }
};

/// The last candidate of a prefix of the order: all of larger weight are before it, and `num_equal` of its
/// own.
struct Border {
  uint32_t weight = 0;  // its bits: of numbers that are not negative, they are ordered as the numbers
  Mass num_equal = ~Mass{0};

  __device__ __forceinline__ static Border earlier(const Border& a, const Border& b) {
    if (a.weight != b.weight) return a.weight > b.weight ? a : b;
    return a.num_equal < b.num_equal ? a : b;
  }
};

/// The sum over the warps before this one of what each gave, on every thread.
__device__ Mass before_this_warp(Mass of_warp, Shared& shared) {
  __syncthreads();
  if (threadIdx.x % kWarpSize == 0) shared.sums[threadIdx.x / kWarpSize] = of_warp;
  __syncthreads();
  Mass sum = 0;
  for (int w = 0; w < static_cast<int>(threadIdx.x) / kWarpSize; ++w) sum += shared.sums[w];
  return sum;
}

/// The sum over this lane and those before it.
__device__ __forceinline__ Mass sum_up_to_lane(Mass value) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  for (int distance = 1; distance < kWarpSize; distance *= 2) {
    const Mass other = __shfl_up_sync(kAllLanes, value, static_cast<unsigned>(distance));
    if (mask(lane >= distance)) value += other;
  }
  return value;
}

/// Shared memory adds 32 bits in one instruction. 64 it compares and swaps, again and again while others add
/// to the same bin.
__device__ __forceinline__ void add_to_bin(Shared& shared, uint32_t bin, Mass mass) {
  const uint32_t low = static_cast<uint32_t>(mass);
  const uint32_t before = atomicAdd(&shared.low[bin], low);
  const uint32_t high = static_cast<uint32_t>(mass >> 32) + (before + low < before);
  if (high != 0) atomicAdd(&shared.high[bin], high);
}

/// The bin, of the larger digits first, in which the sum over the bins reaches `wanted`, into shared.digit;
/// the last one where there is less. What is wanted of it alone: shared.rest.
__device__ void find_digit(Mass wanted, Shared& shared) {
  const int first = static_cast<int>(threadIdx.x) * kBinsEach;
  Mass bins[kBinsEach], sum = 0;
#pragma unroll
  for (int i = 0; i < kBinsEach; ++i) {
    const int digit = kBins - 1 - first - i;
    bins[i] = Mass{shared.high[digit]} << 32 | shared.low[digit];
    sum += bins[i];
  }
  const Mass up_to = sum_up_to_lane(sum);
  Mass before = before_this_warp(__shfl_sync(kAllLanes, up_to, kWarpSize - 1), shared) + up_to - sum;
#pragma unroll
  for (int i = 0; i < kBinsEach; ++i) {
    const int digit = kBins - 1 - first - i;
    if (before < wanted && (before + bins[i] >= wanted || digit == 0)) {
      shared.digit = static_cast<uint32_t>(digit);
      shared.rest = wanted - before;
    }
    before += bins[i];
  }
  __syncthreads();
}

/// The shortest prefix whose measure reaches `wanted` (at least 1): its number of candidates, or with kByMass
/// its mass.
template <bool kByMass>
__device__ Border find_border(const Weights& weights, Mass wanted, Shared& shared) {
  uint32_t prefix = 0;
  for (int shift = kWeightBits - kDigitBits; shift >= 0; shift -= kDigitBits) {
    for (int b = static_cast<int>(threadIdx.x); b < kBins; b += kThreads) shared.low[b] = shared.high[b] = 0;
    __syncthreads();
    for_each_of_thread(weights.x, weights.count, [&](float logit, int) {
      const float weight = weights.of(logit);
      const uint32_t bits = __float_as_uint(weight);
      if (!mask(bits >> shift >> kDigitBits == prefix)) return;
      add_to_bin(shared, bits >> shift & (kBins - 1), kByMass ? Weights::mass(weight) : Mass{1});
    });
    __syncthreads();
    find_digit(wanted, shared);
    prefix = prefix << kDigitBits | shared.digit;
    wanted = shared.rest;
  }
  Border border{prefix, wanted};
  if (kByMass) {
    const Mass each = Weights::mass(__uint_as_float(prefix));
    border.num_equal = each == 0 ? ~Mass{0} : (wanted + each - 1) / each;
  }
  return border;
}

/// Which candidates stay, asked in order of id by the lanes of a warp together.
struct Kept {
  Border border;
  float at_least;   // min-p
  Mass equal_seen;  // of this warp's range and those before it

  __device__ __forceinline__ bool operator()(bool valid, float weight) {
    const uint32_t bits = __float_as_uint(weight);
    const bool equal = valid && bits == border.weight;
    const uint32_t equals = __ballot_sync(kAllLanes, equal);
    const uint32_t before = equals & ((1u << threadIdx.x % kWarpSize) - 1);
    const Mass place = equal_seen + static_cast<Mass>(__popc(before));
    equal_seen += static_cast<Mass>(__popc(equals));
    return valid && weight >= at_least && (bits > border.weight || (equal && place < border.num_equal));
  }
};

/// What of the ids is this warp's: [begin, end), a multiple of 32 but for the last.
struct WarpRange {
  int begin, end;
  __device__ __forceinline__ explicit WarpRange(int count) {
    const int each = (count + kThreads - 1) / kThreads * kWarpSize,
              warp = static_cast<int>(threadIdx.x) / kWarpSize;
    begin = min(count, warp * each);
    end = min(count, begin + each);
  }
};

/// Calls body(id, valid, weight) for this warp's ids in order, 32 at a time, until it says false; an id that
/// is not valid lies beyond the range. Several logits are asked for before the first is needed.
template <typename Body>
__device__ __forceinline__ void for_each_of_warp(const Weights& weights, Body body) {
  constexpr int kAtOnce = 8;
  const WarpRange range(weights.count);
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  for (int first = range.begin; first < range.end; first += kAtOnce * kWarpSize) {
    float logits[kAtOnce];
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      const int id = first + j * kWarpSize + lane;
      logits[j] = mask(id < range.end) ? weights.x[id] : 0.0f;
    }
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      if (first + j * kWarpSize >= range.end) return;
      const int id = first + j * kWarpSize + lane;
      const bool valid = mask(id < range.end);
      if (!body(id, valid, valid ? weights.of(logits[j]) : 0.0f)) return;
    }
  }
}

/// The same with body(id, mass): none where the id is not kept.
template <typename Body>
__device__ __forceinline__ void for_each_kept(const Weights& weights, Kept kept, Body body) {
  for_each_of_warp(weights, [&](int id, bool valid, float weight) {
    const bool stays = kept(valid, weight);
    return body(id, stays ? Weights::mass(weight) : Mass{0});
  });
}

/// The id at which the mass of what is kept, in order of id, passes `fraction` of the whole.
__device__ int invert(const Weights& weights, const Border& border, float min_p, uint64_t fraction,
                      Shared& shared) {
  Mass equals = 0;
  for_each_of_warp(weights, [&](int, bool valid, float weight) {
    equals += valid && __float_as_uint(weight) == border.weight;
    return true;
  });
  const Kept kept{border, min_p, before_this_warp(warp_sum(equals), shared)};
  Mass mine = 0;
  for_each_kept(weights, kept, [&](int, Mass mass) {
    mine += mass;
    return true;
  });
  const Mass of_warp = warp_sum(mine);
  const Mass before = before_this_warp(of_warp, shared);
  Mass total = 0;
  for (int w = 0; w < kWarps; ++w) total += shared.sums[w];
  const Mass target = __umul64hi(fraction, total);
  if (target >= before && target < before + of_warp) {
    Mass sum = before;
    for_each_kept(weights, kept, [&](int id, Mass mass) {
      const Mass up_to = sum_up_to_lane(mass);
      const bool passes = mass > 0 && sum + up_to > target && sum + up_to - mass <= target;
      if (passes) shared.chosen = id;
      sum += __shfl_sync(kAllLanes, up_to, kWarpSize - 1);
      return __any_sync(kAllLanes, passes) == 0;
    });
  }
  __syncthreads();
  return shared.chosen;
}

__device__ int draw(const Weights& weights, const SamplingRow& row, Shared& shared) {
  Border border;
  const bool by_count = row.top_k > 0 && row.top_k < weights.count, by_mass = row.top_p < 1;
  if (by_count) border = find_border<false>(weights, static_cast<Mass>(row.top_k), shared);
  if (by_mass) {
    Mass mine = 0;
    for_each_of_thread(weights.x, weights.count,
                       [&](float logit, int) { mine += Weights::mass(weights.of(logit)); });
    const Mass total = block_total(mine, shared);
    const Mass wanted =
        max(Mass{1}, static_cast<Mass>(static_cast<double>(row.top_p) * static_cast<double>(total)));
    border = Border::earlier(border, find_border<true>(weights, wanted, shared));
  }
  return invert(weights, border, row.min_p, sampling_fraction(row.seed, row.sample_index, row.output_index),
                shared);
}

/// Steps 1 to 4 of SamplingRow, into `out`.
__device__ void edit(const SamplingInputs& in, const SamplingRow& row, const float* x, float* out) {
  const int r = static_cast<int>(blockIdx.x), count = static_cast<int>(in.vocab_size);
  for_each_of_thread(x, count, [&](float logit, int i) { out[i] = logit; });
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); mask_tail(i, row.num_biases, kThreads); i += kThreads) {
    float& value = out[in.bias_ids[in.first_bias[r] + i]];
    if (!isinf(value)) value = fminf(fmaxf(value + in.biases[in.first_bias[r] + i], -FLT_MAX), FLT_MAX);
  }
  __syncthreads();
  if (row.has_penalties()) {
    const int* counts =
        static_cast<const int*>(in.token_counts.data) + in.slots[r] * in.token_counts.row_stride;
    for_each_of_thread(counts, count, [&](int seen, int i) {
      if (seen == 0) return;
      const float value = out[i];
      if (isinf(value)) return;
      float penalized = value > 0 ? value / row.repetition_penalty : value * row.repetition_penalty;
      const int in_output = seen / 2;
      if (in_output > 0)
        penalized -= static_cast<float>(in_output) * row.frequency_penalty + row.presence_penalty;
      out[i] = fminf(fmaxf(penalized, -FLT_MAX), FLT_MAX);
    });
    __syncthreads();  // against lost updates
  }
  for (int i = static_cast<int>(threadIdx.x); mask_tail(i, row.num_banned, kThreads); i += kThreads)
    out[in.banned_ids[in.first_banned[r] + i]] = -INFINITY;
  __syncthreads();
}

__global__ void __launch_bounds__(kThreads) sample_kernel(SamplingInputs in, int* ids, float* logprobs) {
  Shared& shared = *dynamic_shared<Shared>();
  const int64_t r = blockIdx.x;
  const int count = static_cast<int>(in.vocab_size);
  const SamplingRow row = in.rows[r];
  const float* x = static_cast<const float*>(in.logits.data) + r * in.logits.row_stride;
  const Top top = block_top(x, count, shared.row);
  int id = -1;
  if (isfinite(top.value)) {
    const float* chosen_from = x;
    Top best = top;
    if (row.edits_logits()) {
      edit(in, row, x, in.edited + r * count);
      chosen_from = in.edited + r * count;
      best = block_top(chosen_from, count, shared.row);
    }
    if (isfinite(best.value)) {
      id = best.place;
      if (row.temperature > 0) {
        const float inverse = fminf(1.0f / row.temperature, FLT_MAX);
        id = draw({chosen_from, count, best.value, inverse}, row, shared);
      }
    }
  }
  __syncthreads();
  const float log_sum = block_log_sum(x, count, top.value, shared.row);  // of the logits as they came
  if (threadIdx.x != 0) return;
  ids[r] = id;
  logprobs[r] = id < 0 ? NAN : log_probability(x[id], top.value, log_sum);
}

}  // namespace

void sample(cudaStream_t stream, const SamplingInputs& inputs, const Tensor& ids, const Tensor& logprobs) {
  TRIREME_CHECK(inputs.vocab_size <= 1 << 24);
  launch(stream, "sample", sample_kernel, dim3(static_cast<unsigned>(inputs.logits.rows)), dim3(kThreads),
         sizeof(Shared), inputs, ids.as<int>(), logprobs.as<float>());
}

void CudaBackend::do_sample(const Tensor& logits, int64_t vocab_size, const SamplingRow* rows,
                            const Tensor& ids, const Tensor& logprobs, const SamplingLists& lists) {
  const Stream& stream = queue();
  const size_t edited_bytes = static_cast<size_t>(logits.rows * vocab_size) * sizeof(float);
  const SamplingInputs in{logits,
                          vocab_size,
                          rows,
                          lists.first_bias,
                          lists.first_banned,
                          lists.bias_ids,
                          lists.biases,
                          lists.banned_ids,
                          lists.token_counts,
                          lists.slots,
                          static_cast<float*>(edited_logits_.get(edited_bytes, stream))};
  cuda::sample(stream, in, ids, logprobs);
}

}  // namespace trireme::cuda
