// Steps that run ahead of the host: memory for their copies, places in the stream, recorded operations.

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/cuda_backend.h"

namespace trireme::cuda {
namespace {

class StreamFence final : public Fence {
 public:
  explicit StreamFence(const Stream& stream) : stream_(stream) {}
  void record() override { event_.record(stream_); }
  void wait() override { event_.synchronize(); }

 private:
  const Stream& stream_;
  Event event_;
};

class StreamGraph final : public Graph {
 public:
  StreamGraph(cudaGraphExec_t executable, const Stream& stream) : executable_(executable), stream_(stream) {}
  ~StreamGraph() override {
    stream_.synchronize();
    CUDA_CHECK(cudaGraphExecDestroy(executable_));
  }
  void launch() override { CUDA_CHECK(cudaGraphLaunch(executable_, stream_)); }

 private:
  cudaGraphExec_t executable_;
  const Stream& stream_;
};

absl::Status status_of(cudaError_t error) {
  cudaGetLastError();
  const std::string what =
      absl::StrCat("capturing a step: ", cudaGetErrorString(error), " (", cudaGetErrorName(error),
                   "), available ", free_device_bytes(), " bytes");
  return error == cudaErrorMemoryAllocation ? absl::ResourceExhaustedError(what) : absl::InternalError(what);
}

}  // namespace

absl::StatusOr<Buffer> CudaBackend::allocate_staging(size_t bytes) {
  queue();
  absl::StatusOr<Memory> memory = Memory::allocate(Memory::Place::pinned, bytes, "copies of steps");
  if (!memory.ok()) return memory.status();
  const char* const begin = static_cast<const char*>(memory->data());
  staging_memory_.push_back({begin, begin + bytes});
  return Buffer(memory->detach(), bytes, [this](void* data, size_t) {
    queue().synchronize();
    std::erase_if(staging_memory_, [&](const HostRange& range) { return range.begin == data; });
    Memory::free(data, Memory::Place::pinned);
  });
}

bool CudaBackend::is_staging(const void* memory) const {
  return std::any_of(staging_memory_.begin(), staging_memory_.end(),
                     [&](const HostRange& range) { return memory >= range.begin && memory < range.end; });
}

std::unique_ptr<Fence> CudaBackend::create_fence() { return std::make_unique<StreamFence>(queue()); }

absl::StatusOr<std::unique_ptr<Graph>> CudaBackend::capture(const std::function<void()>& work) {
  const Stream& stream = queue();
  attention_parts_.hold();
  edited_logits_.hold();
  // Of this thread only: others may go on allocating.
  CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  work();
  cudaGraph_t graph = nullptr;
  cudaError_t error = cudaStreamEndCapture(stream, &graph);
  if (error != cudaSuccess) return status_of(error);
  cudaGraphExec_t executable = nullptr;
  error = cudaGraphInstantiate(&executable, graph, 0);
  CUDA_CHECK(cudaGraphDestroy(graph));
  if (error != cudaSuccess) return status_of(error);
  auto recorded = std::make_unique<StreamGraph>(executable, stream);
  error = cudaGraphUpload(executable, stream);  // now rather than at the first launch
  if (error != cudaSuccess) return status_of(error);
  return recorded;
}

}  // namespace trireme::cuda
