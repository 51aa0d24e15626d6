// Symmetric windows, for NCCL 2.27 and newer.

#include <cuda_runtime.h>
#include <nccl.h>

#include <memory>

#include "absl/strings/str_cat.h"
#include "engine/parallel/nccl_memory.h"

namespace trireme {
namespace {

constexpr int kFirstVersion = NCCL_VERSION(2, 27, 0);

absl::Status failed(const char* what, ncclResult_t result) {
  return absl::InternalError(
      absl::StrCat(what, ": ", ncclGetErrorString(result), ": ", ncclGetLastError(nullptr)));
}

}  // namespace

absl::StatusOr<Buffer> allocate_nccl_memory(Backend&, size_t bytes) {
  void* memory = nullptr;
  if (ncclMemAlloc(&memory, bytes) != ncclSuccess) {
    cudaGetLastError();  // or the next check of a launch would find it
    return absl::ResourceExhaustedError(absl::StrCat("ncclMemAlloc: no room for ", bytes, " bytes"));
  }
  Buffer buffer(memory, bytes, [](void* data, size_t) { ncclMemFree(data); });
  cudaError_t zeroed = cudaMemset(memory, 0, bytes);
  // It is not in order with the backend's stream, which does not wait for the default one.
  if (zeroed == cudaSuccess) zeroed = cudaDeviceSynchronize();
  if (zeroed != cudaSuccess)
    return absl::InternalError(absl::StrCat("cudaMemset: ", cudaGetErrorString(zeroed)));
  return buffer;
}

absl::StatusOr<Buffer> register_nccl_window(ncclComm* communicator, int version, Buffer memory) {
  if (version < kFirstVersion) return memory;  // an older library than the one this was built with
  ncclWindow_t window = nullptr;
  const ncclResult_t result =
      ncclCommWindowRegister(communicator, memory.data(), memory.bytes(), &window, NCCL_WIN_COLL_SYMMETRIC);
  if (result != ncclSuccess) return failed("ncclCommWindowRegister", result);
  if (window == nullptr) return memory;  // this hardware has no such way
  void* const data = memory.data();
  const size_t bytes = memory.bytes();
  auto kept = std::make_shared<Buffer>(std::move(memory));
  return Buffer(data, bytes, [communicator, window, kept](void*, size_t) {
    ncclCommWindowDeregister(communicator, window);
  });
}

}  // namespace trireme
