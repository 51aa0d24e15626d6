#include "engine/parallel/nccl_one_shot.h"

#include <limits.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/parallel/agreement.h"

namespace trireme {
namespace {

constexpr size_t kCapacity = size_t{512} << 10;
constexpr int kWarmUps = 3, kCalls = 20;

absl::Status to_status(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return absl::OkStatus();
  cudaGetLastError();  // or the next check of a launch would find it
  return absl::UnavailableError(absl::StrCat(what, ": ", cudaGetErrorString(error)));
}

class Event {
 public:
  Event() { TRIREME_CHECK(cudaEventCreate(&event_) == cudaSuccess); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

/// Of one call, by the device's clock.
float time_ms(cudaStream_t stream, const std::function<void()>& call) {
  for (int i = 0; i < kWarmUps; ++i) call();
  const Event begin, end;
  TRIREME_CHECK(cudaEventRecord(begin.get(), stream) == cudaSuccess);
  for (int i = 0; i < kCalls; ++i) call();
  TRIREME_CHECK(cudaEventRecord(end.get(), stream) == cudaSuccess);
  TRIREME_CHECK(cudaEventSynchronize(end.get()) == cudaSuccess);
  float milliseconds = 0;
  TRIREME_CHECK(cudaEventElapsedTime(&milliseconds, begin.get(), end.get()) == cudaSuccess);
  return milliseconds / kCalls;
}

std::string host_name() {
  std::array<char, HOST_NAME_MAX + 1> name{};
  gethostname(name.data(), name.size() - 1);
  return name.data();
}

}  // namespace

OneShotAllReduce::OneShotAllReduce(HostGroup& host, Backend& backend)
    : host_(host), backend_(backend), stream_(static_cast<cudaStream_t>(backend.stream())) {
  ranks_.num_ranks = host.size();
  ranks_.rank = host.rank();
  ranks_.capacity = kCapacity;
}

OneShotAllReduce::~OneShotAllReduce() {
  backend_.synchronize();
  for (int peer = 0; peer < ranks_.num_ranks && peer < cuda::kOneShotMaxRanks; ++peer) {
    if (peer != ranks_.rank && ranks_.memory[peer] != nullptr) cudaIpcCloseMemHandle(ranks_.memory[peer]);
  }
  // Memory may be freed when nobody maps it any more. A peer that is gone does not map it either.
  (void)host_.barrier(std::chrono::seconds(1));
  if (ranks_.num_ranks <= cuda::kOneShotMaxRanks) cudaFree(ranks_.memory[ranks_.rank]);
}

absl::StatusOr<std::unique_ptr<OneShotAllReduce>> OneShotAllReduce::create(
    HostGroup& host, Backend& backend, const std::function<void(const Tensor&)>& other,
    std::chrono::milliseconds deadline) {
  if (host.size() != 2 && host.size() != 4 && host.size() != 8) return nullptr;
  auto memory = backend.allocate(kCapacity);
  if (absl::Status all = agree_on_success(host, memory.status(), deadline); !all.ok()) return all;
  std::unique_ptr<OneShotAllReduce> one_shot(new OneShotAllReduce(host, backend));
  if (!one_shot->connect(deadline).ok()) return nullptr;
  const Tensor scratch(memory->data(), DType::f32, 1, static_cast<int64_t>(kCapacity / sizeof(float)));
  const absl::Status right = agree_on_success(host, one_shot->verify(scratch), deadline);
  if (!right.ok()) return nullptr;
  if (absl::Status chosen = one_shot->choose_limit(scratch, other, deadline); !chosen.ok()) return chosen;
  return one_shot;
}

/// OK on all ranks or on none.
absl::Status OneShotAllReduce::connect(std::chrono::milliseconds deadline) {
  void*& own = ranks_.memory[ranks_.rank];
  const size_t bytes = cuda::one_shot_memory_bytes(kCapacity);
  absl::Status status = to_status(cudaMalloc(&own, bytes), "cudaMalloc");
  if (status.ok()) status = to_status(cudaMemset(own, 0, bytes), "cudaMemset");
  cudaIpcMemHandle_t handle{};
  if (status.ok()) status = to_status(cudaIpcGetMemHandle(&handle, own), "cudaIpcGetMemHandle");
  // Before the first flag of a peer arrives.
  if (status.ok()) status = to_status(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  if (absl::Status all = agree_on_success(host_, status, deadline); !all.ok()) return all;
  std::string mine(reinterpret_cast<const char*>(&handle), sizeof(handle));
  auto handles = share_bytes(host_, mine + host_name(), deadline);
  if (!handles.ok()) return handles.status();
  return agree_on_success(host_, open(*handles), deadline);
}

absl::Status OneShotAllReduce::open(const std::vector<std::string>& handles) {
  for (size_t peer = 0; peer < handles.size(); ++peer) {
    if (static_cast<int>(peer) == ranks_.rank) continue;
    cudaIpcMemHandle_t handle{};
    const std::string& text = handles[peer];
    if (text.size() < sizeof(handle) || text.substr(sizeof(handle)) != host_name())
      return absl::UnavailableError("ranks on several hosts");
    std::memcpy(&handle, text.data(), sizeof(handle));
    absl::Status opened =
        to_status(cudaIpcOpenMemHandle(&ranks_.memory[peer], handle, cudaIpcMemLazyEnablePeerAccess),
                  "cudaIpcOpenMemHandle");
    if (!opened.ok()) return opened;
  }
  return absl::OkStatus();
}

/// Some machines corrupt what GPUs write to each other.
absl::Status OneShotAllReduce::verify(const Tensor& scratch) const {
  std::vector<float> numbers(static_cast<size_t>(scratch.cols));
  for (size_t i = 0; i < numbers.size(); ++i)
    numbers[i] = static_cast<float>((i * 7 + static_cast<size_t>(ranks_.rank) * 131) % 1021);
  backend_.copy_to_device(scratch.data, numbers.data(), scratch.bytes());
  all_reduce_sum(scratch);
  backend_.copy_to_host(numbers.data(), scratch.data, scratch.bytes());
  backend_.synchronize();
  for (size_t i = 0; i < numbers.size(); ++i) {
    float sum = 0;  // of whole numbers: exact
    for (size_t rank = 0; rank < static_cast<size_t>(ranks_.num_ranks); ++rank)
      sum += static_cast<float>((i * 7 + rank * 131) % 1021);
    if (numbers[i] != sum)
      return absl::DataLossError(absl::StrCat("a sum over peer memory gave ", numbers[i], ", wanted ", sum));
  }
  return absl::OkStatus();
}

/// Every rank times the same calls; rank 0's times decide.
absl::Status OneShotAllReduce::choose_limit(const Tensor& scratch,
                                            const std::function<void(const Tensor&)>& other,
                                            std::chrono::milliseconds deadline) {
  bool faster = true;
  int64_t limit = 0;
  for (int64_t bytes = 4096; bytes <= static_cast<int64_t>(kCapacity); bytes *= 2) {
    const Tensor message = scratch.slice_cols(0, bytes / static_cast<int64_t>(sizeof(float)));
    const float other_ms = time_ms(stream_, [&] { other(message); });
    const float own_ms = time_ms(stream_, [&] { all_reduce_sum(message); });
    faster = faster && own_ms < other_ms;
    if (faster) limit = bytes;
  }
  std::vector<int32_t> words{static_cast<int32_t>(limit)};
  if (absl::Status sent = host_.broadcast(words, 0, deadline); !sent.ok()) return sent;
  if (words.size() != 1) return absl::InternalError("the limit of one-shot sums: a wrong length");
  limit_bytes_ = words[0];
  return absl::OkStatus();
}

}  // namespace trireme
