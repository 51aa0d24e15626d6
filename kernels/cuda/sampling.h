#pragma once
// Drawing tokens on the device.

#include <cuda_runtime.h>

#include "kernels/sampling_row.h"
#include "kernels/tensor.h"

namespace trireme::cuda {

/// Everything in memory of the device; the flat lists are those of SamplingLists (kernels/backend.h).
struct SamplingInputs {
  Tensor logits;  // f32 [num_rows, >= vocab_size], left as they are
  int64_t vocab_size = 0;
  const SamplingRow* rows = nullptr;    // [num_rows]
  const int32_t* first_bias = nullptr;  // [num_rows]: where a row's part of the lists begins
  const int32_t* first_banned = nullptr;
  const int32_t* bias_ids = nullptr;
  const float* biases = nullptr;
  const int32_t* banned_ids = nullptr;
  Tensor token_counts;             // i32 [num_slots, >= vocab_size]
  const int32_t* slots = nullptr;  // [num_rows]
  float* edited = nullptr;         // scratch: [num_rows, vocab_size], used by rows that edit their logits
};

/// Backend::sample(). Masses are added as integers, so that a row's draw depends on neither threads nor
/// batch; against the CPU backend a draw differs where a random number falls within about 1e-6 of a border
/// between two tokens.
void sample(cudaStream_t stream, const SamplingInputs& inputs, const Tensor& ids, const Tensor& logprobs);

}  // namespace trireme::cuda
