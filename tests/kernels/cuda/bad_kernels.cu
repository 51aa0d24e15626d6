// Kernels that resources.py has to complain of, compiled by its test.

namespace trireme::cuda {

/// Indexes an array at run time: it cannot live in registers.
__global__ void add_kernel(float* x, const int* order) {
  float values[64];
  for (int i = 0; i < 64; ++i) values[order[i] & 63] = x[i];
  for (int i = 0; i < 64; ++i) x[i] += values[order[64 + i] & 63];
}

/// Moves 4 bytes at a time where 16 are wanted.
template <typename T, int kWidth>
__global__ void copy_kernel(T* out, const T* in) {
  out[threadIdx.x] = in[threadIdx.x];
}
template __global__ void copy_kernel<float, 4>(float*, const float*);

/// As it should be.
template <typename T, int kWidth>
__global__ void wide_copy_kernel(T* out, const T* in) {
  out[threadIdx.x] = in[threadIdx.x];
}
template __global__ void wide_copy_kernel<float4, 1>(float4*, const float4*);

}  // namespace trireme::cuda
