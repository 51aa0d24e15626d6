#pragma once
// Stands in for the CUDA Toolkit's header of this name where CUDA sources are compiled for the processor: the
// part of the language and of the runtime that our sources use, with the meaning the CUDA C++ Programming
// Guide 13.0 gives. Shared memory is dynamic only (simt::shared_memory()), so that its bounds are known and
// it starts out poisoned.

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <source_location>
#include <tuple>
#include <type_traits>
#include <utility>

#include "tests/simt/grid.h"

#define TRIREME_SIMT 1
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)
#define __shared__ static_assert(false, "shared memory is dynamic here: dynamic_shared<T>()");

// ---- vector types

struct dim3 {
  uint32_t x, y, z;
  constexpr dim3(uint32_t x_in = 1, uint32_t y_in = 1, uint32_t z_in = 1) : x(x_in), y(y_in), z(z_in) {}
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

// ---- in a kernel

constexpr int warpSize = ::simt::kWarpSize;

using SimtWhere = std::source_location;

inline void __syncthreads(SimtWhere where = SimtWhere::current()) { ::simt::block_barrier(false, where); }
inline int __syncthreads_or(int predicate, SimtWhere where = SimtWhere::current()) {
  return ::simt::block_barrier(predicate != 0, where) != 0;
}
inline int __syncthreads_count(int predicate, SimtWhere where = SimtWhere::current()) {
  return ::simt::block_barrier(predicate != 0, where);
}
inline void __syncwarp(uint32_t mask = 0xffffffffu, SimtWhere where = SimtWhere::current()) {
  ::simt::warp_exchange(mask, nullptr, 0, "__syncwarp", where);
}

namespace simt {

template <typename T>
T shuffle(uint32_t mask, T value, uint32_t source, const char* operation, const SimtWhere& where) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  const unsigned char* all = warp_exchange(mask, &value, sizeof value, operation, where);
  if ((mask >> source & 1) == 0)
    fail(std::string(operation) + ": reads lane " + std::to_string(source) + " outside the mask");
  std::memcpy(&value, all + source * kMaxExchangeBytes, sizeof value);
  return value;
}

}  // namespace simt

template <typename T>
T __shfl_sync(uint32_t mask, T value, int source, int width = 32, SimtWhere where = SimtWhere::current()) {
  const uint32_t base = ::simt::lane_id() & ~static_cast<uint32_t>(width - 1);
  return ::simt::shuffle(mask, value,
                         base + (static_cast<uint32_t>(source) & static_cast<uint32_t>(width - 1)),
                         "__shfl_sync", where);
}
template <typename T>
T __shfl_xor_sync(uint32_t mask, T value, int lane_mask, int width = 32,
                  SimtWhere where = SimtWhere::current()) {
  const uint32_t lane = ::simt::lane_id(), source = lane ^ static_cast<uint32_t>(lane_mask);
  const uint32_t limit = (lane & ~static_cast<uint32_t>(width - 1)) + static_cast<uint32_t>(width);
  return ::simt::shuffle(mask, value, source < limit ? source : lane, "__shfl_xor_sync", where);
}
template <typename T>
T __shfl_down_sync(uint32_t mask, T value, unsigned delta, int width = 32,
                   SimtWhere where = SimtWhere::current()) {
  const uint32_t lane = ::simt::lane_id(), in_part = lane & static_cast<uint32_t>(width - 1);
  return ::simt::shuffle(mask, value, in_part + delta < static_cast<uint32_t>(width) ? lane + delta : lane,
                         "__shfl_down_sync", where);
}
template <typename T>
T __shfl_up_sync(uint32_t mask, T value, unsigned delta, int width = 32,
                 SimtWhere where = SimtWhere::current()) {
  const uint32_t lane = ::simt::lane_id(), in_part = lane & static_cast<uint32_t>(width - 1);
  return ::simt::shuffle(mask, value, in_part >= delta ? lane - delta : lane, "__shfl_up_sync", where);
}
inline uint32_t __ballot_sync(uint32_t mask, int predicate, SimtWhere where = SimtWhere::current()) {
  const unsigned char mine = predicate != 0;
  const unsigned char* all = ::simt::warp_exchange(mask, &mine, 1, "__ballot_sync", where);
  uint32_t result = 0;
  for (uint32_t lane = 0; lane < 32; ++lane)
    if ((mask >> lane & 1) != 0 && all[lane * ::simt::kMaxExchangeBytes] != 0) result |= 1u << lane;
  return result;
}
inline int __any_sync(uint32_t mask, int predicate, SimtWhere where = SimtWhere::current()) {
  return __ballot_sync(mask, predicate, where) != 0;
}
inline int __all_sync(uint32_t mask, int predicate, SimtWhere where = SimtWhere::current()) {
  return __ballot_sync(mask, predicate, where) == mask;
}

inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_block() {}

template <typename T>
T atomicAdd(T* address, T value) {
  if constexpr (std::is_integral_v<T>) {
    return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
  } else {
    T old = *address;
    T sum;
    do sum = old + value;
    while (!__atomic_compare_exchange(address, &old, &sum, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return old;
  }
}
template <typename T>
T atomicExch(T* address, T value) {
  return __atomic_exchange_n(address, value, __ATOMIC_RELAXED);
}
inline unsigned atomicInc(unsigned* address, unsigned limit) {
  unsigned old = __atomic_load_n(address, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(address, &old, old >= limit ? 0 : old + 1, false, __ATOMIC_RELAXED,
                                      __ATOMIC_RELAXED)) {
  }
  return old;
}
template <typename T>
T atomicMax(T* address, T value) {
  T old = __atomic_load_n(address, __ATOMIC_RELAXED);
  while (old < value &&
         !__atomic_compare_exchange_n(address, &old, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return old;
}

template <typename T>
T __ldg(const T* address) {
  return *address;
}
inline unsigned __float_as_uint(float value) { return std::bit_cast<unsigned>(value); }
inline int __float_as_int(float value) { return std::bit_cast<int>(value); }
inline float __uint_as_float(unsigned value) { return std::bit_cast<float>(value); }
inline float __int_as_float(int value) { return std::bit_cast<float>(value); }
inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline int __ffs(int value) { return __builtin_ffs(value); }
inline int __clz(int value) { return value == 0 ? 32 : __builtin_clz(static_cast<unsigned>(value)); }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(uint64_t{a} * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
using std::isfinite;
using std::isinf;
using std::isnan;
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
template <typename T>
constexpr T min(T a, T b) {
  return b < a ? b : a;
}
template <typename T>
constexpr T max(T a, T b) {
  return a < b ? b : a;
}

// ---- the runtime

enum cudaError_t : int {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorNoDevice = 100,
  cudaErrorInvalidDevice = 101,
  cudaErrorInvalidResourceHandle = 400,
  cudaErrorNotReady = 600,
  cudaErrorStreamCaptureUnsupported = 900,
  cudaErrorStreamCaptureInvalidated = 901,
};
const char* cudaGetErrorName(cudaError_t error);
const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetLastError();

/// Work is done when somebody waits for it, not before: who forgets to wait reads what was there.
struct SimtStream;
using cudaStream_t = SimtStream*;
constexpr unsigned cudaStreamNonBlocking = 1;
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);

/// Waiting for an event does the work of its stream. An event's time is that of the processor when the stream
/// comes to it. In a capture it is an edge between operations, and has no time, unless it is external: then
/// each launch of the graph records it anew.
struct SimtEvent;
using cudaEvent_t = SimtEvent*;
constexpr unsigned cudaEventDefault = 0, cudaEventDisableTiming = 2;
constexpr unsigned cudaEventRecordDefault = 0, cudaEventRecordExternal = 1;
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end);

/// There is one device.
struct cudaDeviceProp {
  char name[256];
  int major, minor;
  int multiProcessorCount;
  size_t totalGlobalMem;
};
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaMemGetInfo(size_t* free, size_t* total);

/// What is enqueued on a stream that captures is kept for the graph instead, with its arguments as they are.
/// One that waits, or takes or gives back memory meanwhile, makes the capture invalid.
enum cudaStreamCaptureMode {
  cudaStreamCaptureModeGlobal,
  cudaStreamCaptureModeThreadLocal,
  cudaStreamCaptureModeRelaxed
};
enum cudaStreamCaptureStatus {
  cudaStreamCaptureStatusNone,
  cudaStreamCaptureStatusActive,
  cudaStreamCaptureStatusInvalidated
};
struct SimtGraph;
using cudaGraph_t = SimtGraph*;
struct SimtGraphExec;
using cudaGraphExec_t = SimtGraphExec*;
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph);
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph,
                                 unsigned long long flags = 0);
cudaError_t cudaGraphUpload(cudaGraphExec_t executable, cudaStream_t stream);
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);

enum cudaMemcpyKind {
  cudaMemcpyHostToHost,
  cudaMemcpyHostToDevice,
  cudaMemcpyDeviceToHost,
  cudaMemcpyDeviceToDevice,
  cudaMemcpyDefault
};
/// Device memory holds bytes of 0xff at first. The device has 8 GiB of it.
cudaError_t cudaMalloc(void** memory, size_t bytes);
cudaError_t cudaFree(void* memory);
cudaError_t cudaMallocHost(void** memory, size_t bytes);
cudaError_t cudaFreeHost(void* memory);
cudaError_t cudaMemcpyAsync(void* destination, const void* source, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream);
cudaError_t cudaMemcpy2DAsync(void* destination, size_t destination_pitch, const void* source,
                              size_t source_pitch, size_t width_bytes, size_t height, cudaMemcpyKind kind,
                              cudaStream_t stream);
cudaError_t cudaMemsetAsync(void* destination, int value, size_t bytes, cudaStream_t stream);

struct cudaLaunchAttribute {};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  cudaLaunchAttribute* attrs = nullptr;
  unsigned numAttrs = 0;
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };

namespace simt {

/// From now on a thread has to say which device it works on (cudaSetDevice) before it asks anything of one,
/// and memory of the device that is taken is closed to the host. Without it, tests of single kernels read and
/// write such memory as they like.
void set_strict(bool on);
bool is_strict();
/// A kernel of a library is about to run: the first time its code takes some of the device's memory.
void load_code(int kernel);
/// How often the host has waited for a stream or an event.
uint64_t num_waits();
/// Shared memory that a block of the device may ask for: that of compute capability 9.0, or what was set.
size_t max_shared_bytes();
void set_device_shared_bytes(size_t bytes);
/// Memory of the device from now on, no less than is allocated; returns what it had.
size_t set_device_bytes(size_t bytes);
cudaError_t set_max_shared_bytes(const void* kernel, int bytes);
/// Checks the limits of a launch and puts it into its stream.
cudaError_t enqueue(const cudaLaunchConfig_t& config, const void* kernel, std::function<void()> body);
/// What a library does on a stream.
void enqueue_work(cudaStream_t stream, std::function<void()> work);

}  // namespace simt

template <typename... Parameters>
cudaError_t cudaFuncSetAttribute(void (*kernel)(Parameters...), cudaFuncAttribute, int value) {
  return ::simt::set_max_shared_bytes(reinterpret_cast<const void*>(kernel), value);
}

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  std::tuple<std::remove_cv_t<Parameters>...> copies(std::forward<Arguments>(arguments)...);
  return ::simt::enqueue(*config, reinterpret_cast<const void*>(kernel),
                         [kernel, copies] { std::apply(kernel, copies); });
}
