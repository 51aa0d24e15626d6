// The runtime's part of the stand-in: memory, streams, launches.

#include <cuda_runtime.h>
#include <cxxabi.h>
#include <dlfcn.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <set>
#include <string>
#include <vector>

#include "tests/simt/device_memory.h"

/// Operations to be done one after the other, and the events that each launch of them records.
struct SimtRecording {
  std::vector<std::function<void()>> work;
  std::vector<SimtEvent*> events;
};

/// What was enqueued and nobody has waited for.
struct SimtStream {
  void push(std::function<void()> next) {
    std::lock_guard lock(mutex);
    if (captured != nullptr)
      captured->work.push_back(std::move(next));
    else
      work.push_back(std::move(next));
  }
  void drain() {
    std::lock_guard lock(mutex);
    if (work.empty()) return;
    const simt::DeviceAtWork at_work;
    while (!work.empty()) {
      const std::function<void()> next = std::move(work.front());
      work.pop_front();
      next();
    }
  }

  std::unique_ptr<SimtRecording> captured;  // null: nothing is captured
  bool captures() const { return captured != nullptr; }

 private:
  std::mutex mutex;
  std::deque<std::function<void()>> work;
};

struct SimtGraph {
  SimtRecording recording;
};
struct SimtGraphExec {
  std::shared_ptr<const SimtRecording> recording;
  size_t bytes = 0;  // of the device
};

struct SimtEvent {
  explicit SimtEvent(bool has_time) : timed(has_time) {}
  void record(SimtStream& where) {
    stream = &where;
    ++pending;
    recorded = true;
  }
  void pass() {
    passed = std::chrono::steady_clock::now();
    --pending;
  }
  bool has_passed() const { return pending == 0; }

  const bool timed;
  bool recorded = false;
  bool is_edge = false;                       // its last record was in a capture, and not external
  std::atomic<SimtStream*> stream = nullptr;  // of the last record
  std::atomic<int> pending = 0;               // records that have not been passed
  std::chrono::steady_clock::time_point passed;
};

namespace {

constexpr std::align_val_t kMemoryAlign{256};
std::atomic<size_t> device_shared_bytes =
    227 * 1024;  // compute capability 9.0, CUDA C++ Programming Guide, table of limits
constexpr size_t kDefaultSharedBytes = 48 * 1024;
constexpr uint32_t kMaxBlockThreads = 1024, kMaxBlockZ = 64;
std::atomic<size_t> device_bytes = size_t{8} << 30;
constexpr size_t kOperationBytes = 16 * 1024;  // of a graph: a guess at what a driver takes
constexpr uint32_t kMaxGridX = 0x7fffffff, kMaxGridYz = 65535;

thread_local cudaError_t last_error = cudaSuccess;
thread_local SimtStream* capturing = nullptr;  // by this thread
thread_local bool capture_is_valid = true;
thread_local bool has_device = false;  // this thread has said which
std::atomic<uint64_t> waits = 0;

cudaError_t result(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

/// On a machine with several devices a thread that has not said so works on the first one, whichever it is
/// meant to work on: refused where the test is strict.
bool on_a_device() { return has_device || !simt::is_strict(); }

/// False, and the capture is invalid, where this thread captures.
bool allowed_now() {
  if (capturing == nullptr) return true;
  capture_is_valid = false;
  return false;
}

std::mutex mutex;
std::map<const void*, size_t>& shared_bytes_of_kernels() {
  static auto* by_kernel = new std::map<const void*, size_t>;
  return *by_kernel;
}

/// Bytes of each allocation of the device, and of all of them.
std::map<void*, size_t>& allocations() {
  static auto* all = new std::map<void*, size_t>;
  return *all;
}
size_t allocated_bytes = 0;

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

uint64_t num_waits() { return waits; }

size_t max_shared_bytes() { return device_shared_bytes; }

void set_device_shared_bytes(size_t bytes) { device_shared_bytes = bytes; }

size_t set_device_bytes(size_t bytes) { return device_bytes.exchange(bytes); }

void load_code(int kernel) {
  constexpr size_t kCodeBytes = 4096;
  static auto* loaded = new std::set<int>;
  std::lock_guard lock(mutex);
  if (loaded->insert(kernel).second) allocated_bytes += kCodeBytes;
}

cudaError_t set_max_shared_bytes(const void* kernel, int bytes) {
  if (bytes < 0 || static_cast<size_t>(bytes) > device_shared_bytes) return result(cudaErrorInvalidValue);
  std::lock_guard lock(mutex);
  shared_bytes_of_kernels()[kernel] = static_cast<size_t>(bytes);
  return cudaSuccess;
}

cudaError_t enqueue(const cudaLaunchConfig_t& config, const void* kernel, std::function<void()> body) {
  if (!on_a_device()) return result(cudaErrorInvalidDevice);
  size_t most = kDefaultSharedBytes;
  {
    std::lock_guard lock(mutex);
    const auto known = shared_bytes_of_kernels().find(kernel);
    if (known != shared_bytes_of_kernels().end()) most = std::max(most, known->second);
  }
  if (!valid(config)) return result(cudaErrorInvalidConfiguration);
  if (config.dynamicSmemBytes > std::min<size_t>(most, device_shared_bytes))
    return result(cudaErrorInvalidValue);
  const dim3 &g = config.gridDim, &b = config.blockDim;
  Launch launch{kernel_name(kernel), {g.x, g.y, g.z}, {b.x, b.y, b.z}, config.dynamicSmemBytes};
  stream_of(config.stream).push([launch = std::move(launch), body = std::move(body)] {
    run_grid(launch, body);
  });
  return cudaSuccess;
}

void enqueue_work(cudaStream_t stream, std::function<void()> work) {
  stream_of(stream).push(std::move(work));
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
    case cudaErrorNoDevice:
      return "cudaErrorNoDevice";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorInvalidResourceHandle:
      return "cudaErrorInvalidResourceHandle";
    case cudaErrorNotReady:
      return "cudaErrorNotReady";
    case cudaErrorStreamCaptureUnsupported:
      return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated:
      return "cudaErrorStreamCaptureInvalidated";
  }
  return "unrecognized error code";
}
const char* cudaGetErrorString(cudaError_t error) { return cudaGetErrorName(error); }
cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  if (!on_a_device()) return result(cudaErrorInvalidDevice);
  *stream = new SimtStream;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  stream->drain();
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (!allowed_now()) return result(cudaErrorStreamCaptureUnsupported);
  ++waits;
  stream_of(stream).drain();
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  if (!on_a_device()) return result(cudaErrorInvalidDevice);
  *event = new SimtEvent((flags & cudaEventDisableTiming) == 0);
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  if (!event->has_passed()) event->stream.load()->drain();
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return cudaEventRecordWithFlags(event, stream, cudaEventRecordDefault);
}
cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags) {
  SimtStream& queue = stream_of(stream);
  const bool external = flags == cudaEventRecordExternal;
  if (flags > cudaEventRecordExternal || (external && !queue.captures()))
    return result(cudaErrorInvalidValue);
  event->is_edge = queue.captures() && !external;
  if (event->is_edge) return cudaSuccess;  // between others, and nothing to wait for
  if (queue.captures())
    queue.captured->events.push_back(event);
  else
    event->record(queue);
  queue.push([event] { event->pass(); });
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (!allowed_now()) return result(cudaErrorStreamCaptureUnsupported);
  ++waits;
  if (event->is_edge) return result(cudaErrorInvalidValue);
  if (!event->has_passed()) event->stream.load()->drain();
  return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  for (const SimtEvent* event : {begin, end}) {
    if (event->is_edge) return result(cudaErrorInvalidValue);
    if (!event->timed || !event->recorded) return result(cudaErrorInvalidResourceHandle);
    if (!event->has_passed()) return result(cudaErrorNotReady);
  }
  *milliseconds = std::chrono::duration<float, std::milli>(end->passed - begin->passed).count();
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  // In the other modes threads that do not capture are held to its rules, too, or nobody is.
  if (mode != cudaStreamCaptureModeThreadLocal || stream == nullptr || capturing != nullptr)
    return result(cudaErrorStreamCaptureUnsupported);
  stream->captured = std::make_unique<SimtRecording>();
  capturing = stream;
  capture_is_valid = true;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  if (stream == nullptr || stream != capturing) return result(cudaErrorInvalidValue);
  capturing = nullptr;
  const auto captured = std::move(stream->captured);
  if (!capture_is_valid) return result(cudaErrorStreamCaptureInvalidated);
  *graph = new SimtGraph{std::move(*captured)};
  return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  if (!stream_of(stream).captures())
    *status = cudaStreamCaptureStatusNone;
  else
    *status = capture_is_valid ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusInvalidated;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  const size_t bytes = graph->recording.work.size() * kOperationBytes;
  std::lock_guard lock(mutex);
  if (bytes > device_bytes - allocated_bytes) return result(cudaErrorMemoryAllocation);
  allocated_bytes += bytes;
  *executable = new SimtGraphExec{std::make_shared<const SimtRecording>(graph->recording), bytes};
  return cudaSuccess;
}
cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  SimtStream& queue = stream_of(stream);
  for (SimtEvent* const event : executable->recording->events) event->record(queue);
  queue.push([recording = executable->recording] {
    for (const std::function<void()>& next : recording->work) next();
  });
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  {
    std::lock_guard lock(mutex);
    allocated_bytes -= executable->bytes;
  }
  delete executable;
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device != 0) return result(cudaErrorInvalidDevice);
  *properties = {"the processor", 9, 0, 4, device_bytes};
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  if (device != 0) return result(cudaErrorInvalidDevice);
  has_device = true;
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  if (!on_a_device()) return result(cudaErrorInvalidDevice);
  std::lock_guard lock(mutex);
  *total = device_bytes;
  *free = device_bytes - allocated_bytes;
  return cudaSuccess;
}

cudaError_t cudaMallocHost(void** memory, size_t bytes) {
  if (!allowed_now()) return result(cudaErrorStreamCaptureUnsupported);
  *memory = bytes == 0 ? nullptr : ::operator new(bytes, kMemoryAlign, std::nothrow);
  if (bytes > 0 && *memory == nullptr) return result(cudaErrorMemoryAllocation);
  if (bytes > 0) std::memset(*memory, 0xff, bytes);
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* memory) {
  if (!allowed_now()) return result(cudaErrorStreamCaptureUnsupported);
  ::operator delete(memory, kMemoryAlign);
  return cudaSuccess;
}
cudaError_t cudaMalloc(void** memory, size_t bytes) {
  std::lock_guard lock(mutex);
  if (bytes > device_bytes - allocated_bytes) return result(cudaErrorMemoryAllocation);
  if (!allowed_now()) return result(cudaErrorStreamCaptureUnsupported);
  if (!on_a_device()) return result(cudaErrorInvalidDevice);
  *memory = bytes == 0 ? nullptr : simt::take_device_memory(bytes);
  if (bytes == 0) return cudaSuccess;
  if (*memory == nullptr) return result(cudaErrorMemoryAllocation);
  {
    const simt::DeviceAtWork at_work;
    std::memset(*memory, 0xff, bytes);
  }
  allocations()[*memory] = bytes;
  allocated_bytes += bytes;
  return cudaSuccess;
}
cudaError_t cudaFree(void* memory) {
  if (!allowed_now()) return result(cudaErrorStreamCaptureUnsupported);
  if (memory == nullptr) return cudaSuccess;
  std::lock_guard lock(mutex);
  const auto found = allocations().find(memory);
  if (found == allocations().end()) return result(cudaErrorInvalidValue);
  simt::give_device_memory(memory);
  allocated_bytes -= found->second;
  allocations().erase(found);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* destination, const void* source, size_t bytes, cudaMemcpyKind,
                            cudaStream_t stream) {
  stream_of(stream).push([=] {
    if (bytes > 0) std::memmove(destination, source, bytes);
  });
  return cudaSuccess;
}
cudaError_t cudaMemcpy2DAsync(void* destination, size_t destination_pitch, const void* source,
                              size_t source_pitch, size_t width_bytes, size_t height, cudaMemcpyKind,
                              cudaStream_t stream) {
  if (width_bytes > destination_pitch || width_bytes > source_pitch) return result(cudaErrorInvalidValue);
  stream_of(stream).push([=] {
    for (size_t row = 0; row < height; ++row)
      std::memcpy(static_cast<char*>(destination) + row * destination_pitch,
                  static_cast<const char*>(source) + row * source_pitch, width_bytes);
  });
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* destination, int value, size_t bytes, cudaStream_t stream) {
  stream_of(stream).push([=] {
    if (bytes > 0) std::memset(destination, value, bytes);
  });
  return cudaSuccess;
}
