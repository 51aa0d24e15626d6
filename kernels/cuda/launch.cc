#include "kernels/cuda/launch.h"

#include <cstdio>
#include <cstdlib>

namespace trireme::cuda {

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "CUDA: %s: %s (%s)\n", what, cudaGetErrorString(error), cudaGetErrorName(error));
  std::abort();
}

}  // namespace trireme::cuda
