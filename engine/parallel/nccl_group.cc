// Collectives of CUDA devices over NCCL. Communicators are blocking: on a non-blocking one every group call
// starts a thread and returns ncclInProgress, which does not go with capture. What can hang for ever is ended
// by ending the process: starting a communicator by a guard with a deadline, a step by the worker's watchdog.
// A connection that breaks behind our back shows in ncclCommGetAsyncError(), which a guard asks; a peer that
// dies on this host does not, but mpirun ends this job then.

#include <cuda_runtime.h>
#include <limits.h>
#include <nccl.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/parallel/agreement.h"
#include "engine/parallel/collectives.h"
#include "engine/parallel/nccl_memory.h"
#include "engine/parallel/nccl_one_shot.h"
#include "engine/parallel/process_guard.h"

namespace trireme {
namespace {

constexpr std::chrono::milliseconds kAsyncErrorInterval{200};

std::string nccl_error(ncclResult_t result) {
  return absl::StrCat(ncclGetErrorString(result), ": ", ncclGetLastError(nullptr));
}

void check_nccl(ncclResult_t result, const char* what, int line) {
  if (result != ncclSuccess) check_failed(__FILE__, line, absl::StrCat(what, ": ", nccl_error(result)));
}
#define NCCL_CHECK(call) check_nccl((call), #call, __LINE__)

void check_cuda(cudaError_t error, const char* what, int line) {
  if (error != cudaSuccess) check_failed(__FILE__, line, absl::StrCat(what, ": ", cudaGetErrorString(error)));
}
#define NCCL_CUDA_CHECK(call) check_cuda((call), #call, __LINE__)

ncclDataType_t nccl_dtype(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return ncclFloat32;
    case DType::f16:
      return ncclFloat16;
    case DType::bf16:
      return ncclBfloat16;
    case DType::i32:
      return ncclInt32;
  }
  check_failed(__FILE__, __LINE__, "a dtype NCCL was not told of");
}

/// Owns a communicator and watches it.
class Communicator {
 public:
  Communicator(ncclComm_t communicator, const std::string& who) : communicator_(communicator) {
    guard_.emplace(kAsyncErrorInterval, [communicator, who] {
      ncclResult_t state = ncclSuccess;
      if (ncclCommGetAsyncError(communicator, &state) != ncclSuccess || state == ncclSuccess)
        return std::string();
      return absl::StrCat(who, ": NCCL: ", nccl_error(state),
                          "; the group is broken, so this process ends (exit 70)");
    });
  }
  ~Communicator() {
    guard_.reset();  // it asks about the communicator
    ncclCommDestroy(communicator_);
  }
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;
  ncclComm_t get() const { return communicator_; }

 private:
  const ncclComm_t communicator_;
  std::optional<ProcessGuard> guard_;
};

class NcclProcessGroup final : public ProcessGroup {
 public:
  NcclProcessGroup(ncclComm_t communicator, int version, const std::string& who, HostGroup& host,
                   Backend& backend, std::chrono::milliseconds deadline)
      : communicator_(communicator, who),
        version_(version),
        host_(host),
        backend_(backend),
        deadline_(deadline),
        stream_(static_cast<cudaStream_t>(backend.stream())) {}

  int rank() const override { return host_.rank(); }
  int size() const override { return host_.size(); }
  std::string name() const override { return "nccl"; }
  bool can_be_captured() const override { return true; }
  std::string all_reduce_algorithm(int64_t bytes) const override {
    if (one_shot_ != nullptr && bytes <= one_shot_->limit_bytes()) return "one exchange over peer memory";
    return absl::StrCat("nccl ", nccl_version_text(version_));
  }

  void all_reduce_sum(const Tensor& tensor) override {
    if (one_shot_ != nullptr && one_shot_->takes(tensor)) return one_shot_->all_reduce_sum(tensor);
    all_reduce_by_nccl(tensor);
  }

  // The parts arrive one behind the other and are put side by side from there.
  void gather_cols(const Tensor& part, const Tensor& whole) override {
    TRIREME_CHECK(part.contiguous());
    const auto count = static_cast<size_t>(part.size());
    const ncclDataType_t dtype = nccl_dtype(part.dtype);
    if (rank() != 0) {
      NCCL_CHECK(ncclSend(part.data, count, dtype, 0, communicator_.get(), stream_));
      return;
    }
    CHECK_EQ(whole.rows, part.rows);
    CHECK_EQ(whole.cols, part.cols * size());
    reserve(part.bytes() * static_cast<size_t>(size() - 1));
    NCCL_CHECK(ncclGroupStart());
    for (int peer = 1; peer < size(); ++peer) {
      NCCL_CHECK(
          ncclRecv(arrived_from(peer, part.bytes()), count, dtype, peer, communicator_.get(), stream_));
    }
    NCCL_CHECK(ncclGroupEnd());
    for (int peer = 0; peer < size(); ++peer) {
      void* const from = peer == 0 ? part.data : arrived_from(peer, part.bytes());
      backend_.copy(Tensor(from, part.dtype, part.rows, part.cols),
                    whole.slice_cols(peer * part.cols, part.cols));
    }
  }

  void broadcast(const Tensor& tensor) override {
    TRIREME_CHECK(tensor.contiguous());
    NCCL_CHECK(
        ncclBroadcast(tensor.data, tensor.data, tensor.bytes(), ncclUint8, 0, communicator_.get(), stream_));
  }

  absl::StatusOr<Buffer> communication_buffer(Backend& backend, size_t bytes) override {
    auto least = agree_on_minimum(host_, -static_cast<int64_t>(bytes), deadline_);
    if (!least.ok()) return least.status();
    auto memory = allocate_nccl_memory(backend, static_cast<size_t>(-*least));
    if (absl::Status all = agree_on_success(host_, memory.status(), deadline_); !all.ok()) return all;
    const ProcessGuard guard(
        deadline_,
        absl::StrCat("rank ", rank(), " of ", size(), ": ncclCommWindowRegister did not return within ",
                     deadline_.count(), " ms, so this process ends (exit 70)"));
    return register_nccl_window(communicator_.get(), version_, *std::move(memory));
  }

  /// Looks for a faster way for small sums.
  absl::Status try_one_shot() {
    auto one_shot = OneShotAllReduce::create(
        host_, backend_, [this](const Tensor& tensor) { all_reduce_by_nccl(tensor); }, deadline_);
    if (one_shot.ok()) one_shot_ = *std::move(one_shot);
    return one_shot.status();
  }

  /// Each collective once, so that connections are made now, and seen to be right.
  absl::Status try_out() {
    auto numbers = backend_.allocate(sizeof(float) * static_cast<size_t>(size() + 1));
    if (absl::Status all = agree_on_success(host_, numbers.status(), deadline_); !all.ok()) return all;
    const Tensor one(numbers->data(), DType::f32, 1, 1);
    const Tensor each(one.as<float>() + 1, DType::f32, 1, size());
    const float mine = 1.0f + static_cast<float>(rank());
    backend_.copy_to_device(one.data, &mine, sizeof(mine));
    gather_cols(one, each);
    all_reduce_sum(one);
    broadcast(each);
    std::vector<float> got(static_cast<size_t>(size()) + 1);
    backend_.copy_to_host(got.data(), numbers->data(), numbers->bytes());
    backend_.synchronize();
    float sum = 0;
    for (int peer = 0; peer < size(); ++peer) {
      const float wanted = 1.0f + static_cast<float>(peer);
      sum += wanted;
      if (got[static_cast<size_t>(peer) + 1] != wanted)
        return wrong("gathered", got[static_cast<size_t>(peer) + 1], wanted);
    }
    return got[0] == sum ? absl::OkStatus() : wrong("summed", got[0], sum);
  }

 private:
  void all_reduce_by_nccl(const Tensor& tensor) {
    TRIREME_CHECK(tensor.contiguous());
    NCCL_CHECK(ncclAllReduce(tensor.data, tensor.data, static_cast<size_t>(tensor.size()),
                             nccl_dtype(tensor.dtype), ncclSum, communicator_.get(), stream_));
  }
  static absl::Status wrong(const char* what, float got, float wanted) {
    return absl::InternalError(absl::StrCat("NCCL ", what, " ", got, ", wanted ", wanted,
                                            ": the links between these GPUs corrupt data"));
  }
  void* arrived_from(int peer, size_t part_bytes) const {
    return static_cast<char*>(arrived_.data()) + static_cast<size_t>(peer - 1) * part_bytes;
  }
  /// Grows only. Aborts inside a capture and after one, whose graph knows the address: the largest gather has
  /// to be run once before.
  void reserve(size_t bytes) {
    cudaStreamCaptureStatus capturing = cudaStreamCaptureStatusNone;
    NCCL_CUDA_CHECK(cudaStreamIsCapturing(stream_, &capturing));
    is_captured_ = is_captured_ || capturing != cudaStreamCaptureStatusNone;
    if (arrived_.bytes() >= bytes) return;
    CHECK_EQ(is_captured_, false);
    backend_.synchronize();  // what is given back may be in use
    arrived_ = Buffer();
    auto memory = backend_.allocate(bytes);
    if (!memory.ok()) check_failed(__FILE__, __LINE__, std::string(memory.status().message()));
    arrived_ = *std::move(memory);
  }

  Communicator communicator_;
  const int version_;
  HostGroup& host_;
  Backend& backend_;
  const std::chrono::milliseconds deadline_;
  const cudaStream_t stream_;
  Buffer arrived_;            // rank 0: parts of the other ranks
  bool is_captured_ = false;  // a gather has been
  std::unique_ptr<OneShotAllReduce> one_shot_;
};

absl::StatusOr<NcclRank> describe_rank() {
  NcclRank rank;
  std::array<char, HOST_NAME_MAX + 1> host{};
  gethostname(host.data(), host.size() - 1);
  rank.host = host.data();
  int device = 0;
  std::array<char, 32> address{};
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess)
    error = cudaDeviceGetPCIBusId(address.data(), static_cast<int>(address.size()), device);
  if (error != cudaSuccess)
    return absl::UnavailableError(absl::StrCat("NCCL: no CUDA device: ", cudaGetErrorString(error)));
  rank.device = address.data();
  const ncclResult_t result = ncclGetVersion(&rank.version);
  if (result != ncclSuccess) return absl::InternalError(absl::StrCat("ncclGetVersion: ", nccl_error(result)));
  return rank;
}

/// Made by rank 0, the same on every rank.
absl::StatusOr<ncclUniqueId> share_unique_id(HostGroup& host, std::chrono::milliseconds deadline) {
  ncclUniqueId id{};
  absl::Status made = absl::OkStatus();
  if (host.rank() == 0) {
    const ncclResult_t result = ncclGetUniqueId(&id);
    if (result != ncclSuccess)
      made = absl::InternalError(absl::StrCat("ncclGetUniqueId: ", nccl_error(result)));
  }
  if (absl::Status all = agree_on_success(host, made, deadline); !all.ok()) return all;
  static_assert(sizeof(id) % sizeof(int32_t) == 0);
  std::vector<int32_t> words(sizeof(id) / sizeof(int32_t));
  if (host.rank() == 0) std::memcpy(words.data(), &id, sizeof(id));
  if (absl::Status sent = host.broadcast(words, 0, deadline); !sent.ok()) return sent;
  if (words.size() * sizeof(int32_t) != sizeof(id)) return absl::InternalError("NCCL's id: a wrong length");
  std::memcpy(&id, words.data(), sizeof(id));
  return id;
}

absl::StatusOr<ncclComm_t> start(HostGroup& host, const ncclUniqueId& id, const std::string& who,
                                 std::chrono::milliseconds deadline) {
  // NCCL waits for the other ranks without a deadline.
  const ProcessGuard guard(deadline,
                           absl::StrCat(who, ": NCCL did not start within ", deadline.count(),
                                        " ms: a rank is missing or cannot be reached (NCCL_DEBUG=INFO "
                                        "tells more), so this process ends (exit 70)"));
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 1;
  ncclComm_t communicator = nullptr;
  const ncclResult_t result = ncclCommInitRankConfig(&communicator, host.size(), id, host.rank(), &config);
  if (result != ncclSuccess)
    return absl::UnavailableError(absl::StrCat("NCCL did not start: ", nccl_error(result)));
  return communicator;
}

}  // namespace

bool has_nccl() { return true; }

absl::StatusOr<std::unique_ptr<ProcessGroup>> create_nccl_process_group(HostGroup& host, Backend& backend,
                                                                        std::chrono::milliseconds deadline) {
  if (host.size() == 1) return create_single_process_group();
  auto mine = describe_rank();
  // The default stream would not wait for the backend's work, nor that for it.
  if (mine.ok() && backend.stream() == nullptr)
    mine = absl::FailedPreconditionError(
        absl::StrCat("NCCL: backend ", backend.name(), " has no stream to add to"));
  if (absl::Status all = agree_on_success(host, mine.status(), deadline); !all.ok()) return all;
  if (absl::Status all = agree_on_nccl(host, *mine, deadline); !all.ok()) return all;
  auto id = share_unique_id(host, deadline);
  if (!id.ok()) return id.status();
  const std::string who =
      absl::StrCat("rank ", host.rank(), " of ", host.size(), " on ", mine->host, ", GPU ", mine->device);
  auto communicator = start(host, *id, who, deadline);
  if (absl::Status all = agree_on_success(host, communicator.status(), deadline); !all.ok()) return all;
  auto group = std::make_unique<NcclProcessGroup>(*communicator, mine->version, who, host, backend, deadline);
  const ProcessGuard guard(
      deadline, absl::StrCat(who, ": the first collectives over NCCL did not end within ", deadline.count(),
                             " ms, so this process ends (exit 70)"));
  if (absl::Status all = agree_on_success(host, group->try_out(), deadline); !all.ok()) return all;
  if (absl::Status all = agree_on_success(host, group->try_one_shot(), deadline); !all.ok()) return all;
  return group;
}

}  // namespace trireme
