// The runtime's part of the stand-in: memory, streams, launches.

#include <cuda_runtime.h>
#include <cxxabi.h>
#include <dlfcn.h>

#include <cstdlib>
#include <deque>
#include <map>
#include <mutex>
#include <new>
#include <string>

/// What was enqueued and nobody has waited for. One host thread at a time uses a stream.
struct SimtStream {
  std::deque<std::function<void()>> work;

  void drain() {
    while (!work.empty()) {
      const std::function<void()> next = std::move(work.front());
      work.pop_front();
      next();
    }
  }
};

namespace {

constexpr std::align_val_t kMemoryAlign{256};
constexpr size_t kMaxSharedBytes =
    227 * 1024;  // compute capability 9.0, CUDA C++ Programming Guide, table of limits
constexpr size_t kDefaultSharedBytes = 48 * 1024;
constexpr uint32_t kMaxBlockThreads = 1024, kMaxBlockZ = 64;
constexpr uint32_t kMaxGridX = 0x7fffffff, kMaxGridYz = 65535;

thread_local cudaError_t last_error = cudaSuccess;

cudaError_t result(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

std::mutex mutex;
std::map<const void*, size_t>& max_shared_bytes() {
  static auto* by_kernel = new std::map<const void*, size_t>;
  return *by_kernel;
}

SimtStream& stream_of(cudaStream_t stream) {
  static auto* default_stream = new SimtStream;
  return stream == nullptr ? *default_stream : *stream;
}

std::string kernel_name(const void* kernel) {
  Dl_info info;
  if (dladdr(kernel, &info) == 0 || info.dli_sname == nullptr) return "(link with -rdynamic to see its name)";
  int status = 0;
  char* readable = abi::__cxa_demangle(info.dli_sname, nullptr, nullptr, &status);
  std::string name = status == 0 ? readable : info.dli_sname;
  std::free(readable);
  return name.substr(0, name.find('('));
}

bool valid(const cudaLaunchConfig_t& config) {
  const dim3 &g = config.gridDim, &b = config.blockDim;
  const auto within = [](uint32_t value, uint32_t most) { return value >= 1 && value <= most; };
  return within(g.x, kMaxGridX) && within(g.y, kMaxGridYz) && within(g.z, kMaxGridYz) &&
         within(b.x, kMaxBlockThreads) && within(b.y, kMaxBlockThreads) && within(b.z, kMaxBlockZ) &&
         uint64_t{b.x} * b.y * b.z <= kMaxBlockThreads;
}

}  // namespace

namespace simt {

cudaError_t set_max_shared_bytes(const void* kernel, int bytes) {
  if (bytes < 0 || static_cast<size_t>(bytes) > kMaxSharedBytes) return result(cudaErrorInvalidValue);
  std::lock_guard lock(mutex);
  max_shared_bytes()[kernel] = static_cast<size_t>(bytes);
  return cudaSuccess;
}

cudaError_t enqueue(const cudaLaunchConfig_t& config, const void* kernel, std::function<void()> body) {
  size_t most = kDefaultSharedBytes;
  {
    std::lock_guard lock(mutex);
    const auto known = max_shared_bytes().find(kernel);
    if (known != max_shared_bytes().end()) most = std::max(most, known->second);
  }
  if (!valid(config)) return result(cudaErrorInvalidConfiguration);
  if (config.dynamicSmemBytes > most) return result(cudaErrorInvalidValue);
  const dim3 &g = config.gridDim, &b = config.blockDim;
  Launch launch{kernel_name(kernel), {g.x, g.y, g.z}, {b.x, b.y, b.z}, config.dynamicSmemBytes};
  stream_of(config.stream).work.push_back([launch = std::move(launch), body = std::move(body)] {
    run_grid(launch, body);
  });
  return cudaSuccess;
}

}  // namespace simt

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorStreamCaptureUnsupported:
      return "cudaErrorStreamCaptureUnsupported";
  }
  return "unrecognized error code";
}
const char* cudaGetErrorString(cudaError_t error) { return cudaGetErrorName(error); }
cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new SimtStream;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  stream->drain();
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  stream_of(stream).drain();
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  *memory = bytes == 0 ? nullptr : ::operator new(bytes, kMemoryAlign, std::nothrow);
  if (bytes > 0 && *memory == nullptr) return result(cudaErrorMemoryAllocation);
  if (bytes > 0) std::memset(*memory, 0xff, bytes);
  return cudaSuccess;
}
cudaError_t cudaFree(void* memory) {
  ::operator delete(memory, kMemoryAlign);
  return cudaSuccess;
}
cudaError_t cudaMallocHost(void** memory, size_t bytes) { return cudaMalloc(memory, bytes); }
cudaError_t cudaFreeHost(void* memory) { return cudaFree(memory); }

cudaError_t cudaMemcpyAsync(void* destination, const void* source, size_t bytes, cudaMemcpyKind,
                            cudaStream_t stream) {
  stream_of(stream).work.push_back([=] {
    if (bytes > 0) std::memmove(destination, source, bytes);
  });
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* destination, int value, size_t bytes, cudaStream_t stream) {
  stream_of(stream).work.push_back([=] {
    if (bytes > 0) std::memset(destination, value, bytes);
  });
  return cudaSuccess;
}
