#include "kernels/cuda/runtime.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"

namespace trireme::cuda {

void check(cudaError_t error, const char* what, const char* file, int line) {
  if (error == cudaSuccess) return;
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  const std::string rank = process_name().empty() ? "" : ", " + process_name();
  std::fprintf(stderr, "%s:%d: CUDA error on %s%s: %s: %s (%s)\n", file, line, host, rank.c_str(), what,
               cudaGetErrorString(error), cudaGetErrorName(error));
  std::fflush(stderr);
  // At once: what runs at a usual exit would wait for the device.
  std::_Exit(70);
}

absl::StatusOr<Memory> Memory::allocate(Place place, size_t bytes, const std::string& what) {
  Memory memory;
  memory.place_ = place;
  // No allocation is empty: its address would be that of nothing.
  const size_t taken = bytes > 0 ? bytes : 1;
  const cudaError_t error =
      place == Place::device ? cudaMalloc(&memory.data_, taken) : cudaMallocHost(&memory.data_, taken);
  if (error == cudaErrorMemoryAllocation) {
    memory.data_ = nullptr;
    cudaGetLastError();  // this one error leaves the device as it was
    if (place == Place::pinned)
      return absl::ResourceExhaustedError(
          absl::StrCat("pinned host memory for ", what, ": wanted ", bytes,
                       " bytes, and the system gives no more (ulimit -l, memory cgroup)"));
    return absl::ResourceExhaustedError(absl::StrCat("device memory for ", what, ": wanted ", bytes,
                                                     " bytes, available ", free_device_bytes()));
  }
  CUDA_CHECK(error);
  memory.bytes_ = bytes;
  return memory;
}

void* Memory::detach() {
  bytes_ = 0;
  return std::exchange(data_, nullptr);
}

void Memory::free(void* data, Place place) {
  if (data == nullptr) return;
  if (place == Place::device)
    CUDA_CHECK(cudaFree(data));
  else
    CUDA_CHECK(cudaFreeHost(data));
}

void* Scratch::get(size_t bytes, const Stream& stream) {
  const absl::Status status = reserve(bytes, stream, "scratch");
  if (!status.ok()) {
    std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
    std::_Exit(70);
  }
  return memory_.data();
}

absl::Status Scratch::reserve(size_t bytes, const Stream& stream, const std::string& what) {
  if (bytes <= memory_.bytes()) return absl::OkStatus();
  if (held_) check_failed(__FILE__, __LINE__, absl::StrCat(what, " grows after a step was captured with it"));
  stream.synchronize();
  memory_ = Memory();
  absl::StatusOr<Memory> memory = Memory::allocate(Memory::Place::device, bytes, what);
  if (!memory.ok()) return memory.status();
  memory_ = *std::move(memory);
  return absl::OkStatus();
}

int64_t free_device_bytes() {
  size_t free = 0, total = 0;
  CUDA_CHECK(cudaMemGetInfo(&free, &total));
  return static_cast<int64_t>(free);
}

}  // namespace trireme::cuda
