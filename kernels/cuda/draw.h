#pragma once
// Weights drawn where they are used.

#include <cuda_runtime.h>

#include "kernels/drawn_values.h"
#include "kernels/tensor.h"

namespace trireme::cuda {

/// The elements at `place` rounded to out's dtype (f32, f16 or bf16), the numbers of draw_values().
/// `quantiles`: the values of place.quantiles, in memory of the device.
void draw(cudaStream_t stream, const DrawnPlace& place, const float* quantiles, const Tensor& out);

}  // namespace trireme::cuda
