// Groups over MPI. The only file that includes mpi.h; it also starts and ends MPI.
// Sums are TreeSum's, not MPI_Allreduce's, whose bits change with the size of the message.

#include <mpi.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <span>

#include "absl/strings/str_cat.h"
#include "engine/parallel/idle_wait.h"
#include "engine/parallel/process_group.h"
#include "engine/parallel/tree_sum.h"
#include "kernels/float_conversion.h"

namespace trireme {
namespace {

enum Tag : int { kBroadcastTag = 1, kGatherTag = 2, kReduceTag = 3, kColumnsTag = 4 };

constexpr int kPollsBeforeYield = 100;

// Open MPI's probes and tests look first and make progress after: what one call brings in, only the next one
// sees. With a single call between two sleeps a message would wait for the end of the second.
constexpr int kLooksPerWake = 2;

void check_mpi(int code, const char* what) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(code, text, &length);
  check_failed(__FILE__, __LINE__, absl::StrCat(what, ": ", text));
}
#define MPI_CHECK(call) check_mpi((call), #call)

/// Waits until `look` is true, without burning a core; false when the deadline has passed.
template <typename Look>
bool wait_until(std::chrono::milliseconds deadline, Look&& look) {
  IdleWait wait(deadline);
  do {
    for (int i = 0; i < kLooksPerWake; ++i) {
      if (look()) return true;
    }
  } while (wait.pause());
  return false;
}

/// Among the job's processes on this host.
struct PlaceOnHost {
  int rank = 0, size = 1;
};

class MpiHostGroup final : public HostGroup {
 public:
  MpiHostGroup(MPI_Comm comm, const PlaceOnHost& place, bool owns_mpi)
      : comm_(comm), place_(place), owns_mpi_(owns_mpi) {
    MPI_CHECK(MPI_Comm_rank(comm_, &rank_));
    MPI_CHECK(MPI_Comm_size(comm_, &size_));
  }
  ~MpiHostGroup() override {
    if (owns_mpi_) {
      MPI_Finalize();
    } else {
      MPI_Comm_free(&comm_);
    }
  }
  MpiHostGroup(const MpiHostGroup&) = delete;
  MpiHostGroup& operator=(const MpiHostGroup&) = delete;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  int local_rank() const override { return place_.rank; }
  int local_size() const override { return place_.size; }
  MPI_Comm comm() const { return comm_; }

  absl::Status broadcast(std::vector<int32_t>& words, int root, std::chrono::milliseconds deadline) override {
    if (size_ == 1) return absl::OkStatus();
    if (rank_ != root) return receive(words, root, deadline);
    requests_.assign(size_, MPI_REQUEST_NULL);
    for (int peer = 0; peer < size_; ++peer) {
      if (peer == root) continue;
      MPI_CHECK(MPI_Isend(words.data(), static_cast<int>(words.size()), MPI_INT32_T, peer, kBroadcastTag,
                          comm_, &requests_[peer]));
    }
    return wait_for_requests(deadline, "broadcast to the other ranks");
  }

  absl::StatusOr<std::vector<std::string>> gather(const std::string& bytes, int root,
                                                  std::chrono::milliseconds deadline) override {
    std::vector<std::string> all;
    if (rank_ != root) {
      requests_.assign(1, MPI_REQUEST_NULL);
      MPI_CHECK(MPI_Isend(bytes.data(), static_cast<int>(bytes.size()), MPI_BYTE, root, kGatherTag, comm_,
                          &requests_[0]));
      absl::Status sent = wait_for_requests(deadline, absl::StrCat("gather to rank ", root));
      if (!sent.ok()) return sent;
      return all;
    }
    all.resize(size_);
    all[root] = bytes;
    for (int peer = 0; peer < size_; ++peer) {
      if (peer == root) continue;
      auto message = probe(peer, kGatherTag, deadline, "gather");
      if (!message.ok()) return message.status();
      int count = 0;
      MPI_CHECK(MPI_Get_count(&*message, MPI_BYTE, &count));
      all[peer].resize(count);
      MPI_CHECK(MPI_Recv(all[peer].data(), count, MPI_BYTE, peer, kGatherTag, comm_, MPI_STATUS_IGNORE));
    }
    return all;
  }

  absl::Status barrier(std::chrono::milliseconds deadline) override {
    requests_.assign(1, MPI_REQUEST_NULL);
    MPI_CHECK(MPI_Ibarrier(comm_, &requests_[0]));
    return wait_for_requests(deadline, "barrier");
  }

  std::unique_ptr<HostGroup> split(int color, int key) override {
    MPI_Comm part = MPI_COMM_NULL;
    MPI_CHECK(MPI_Comm_split(comm_, color, key, &part));
    return std::make_unique<MpiHostGroup>(part, place_, false);
  }

 private:
  absl::Status late(const std::string& what, std::chrono::milliseconds deadline) const {
    return absl::DeadlineExceededError(absl::StrCat("rank ", rank_, " of ", size_, ": ", what,
                                                    ": nothing within ", deadline.count(), " ms"));
  }

  absl::Status wait_for_requests(std::chrono::milliseconds deadline, const std::string& what) {
    const bool done = wait_until(deadline, [&] {
      int all = 0;
      MPI_CHECK(MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &all, MPI_STATUSES_IGNORE));
      return all != 0;
    });
    return done ? absl::OkStatus() : late(what, deadline);
  }

  absl::StatusOr<MPI_Status> probe(int peer, int tag, std::chrono::milliseconds deadline, const char* what) {
    MPI_Status message{};
    const bool there = wait_until(deadline, [&] {
      int seen = 0;
      MPI_CHECK(MPI_Iprobe(peer, tag, comm_, &seen, &message));
      return seen != 0;
    });
    if (!there) return late(absl::StrCat(what, " from rank ", peer), deadline);
    return message;
  }

  absl::Status receive(std::vector<int32_t>& words, int root, std::chrono::milliseconds deadline) {
    auto message = probe(root, kBroadcastTag, deadline, "broadcast");
    if (!message.ok()) return message.status();
    int count = 0;
    MPI_CHECK(MPI_Get_count(&*message, MPI_INT32_T, &count));
    words.resize(count);
    MPI_CHECK(MPI_Recv(words.data(), count, MPI_INT32_T, root, kBroadcastTag, comm_, MPI_STATUS_IGNORE));
    return absl::OkStatus();
  }

  MPI_Comm comm_;
  PlaceOnHost place_;
  bool owns_mpi_;
  int rank_ = 0, size_ = 1;
  std::vector<MPI_Request> requests_;
};

/// Point to point for sums, on a communicator of its own: a late plan can never be taken for a partial sum.
class MpiTransport final : public PeerTransport {
 public:
  explicit MpiTransport(MPI_Comm comm) { MPI_CHECK(MPI_Comm_dup(comm, &comm_)); }
  ~MpiTransport() override { MPI_Comm_free(&comm_); }
  MpiTransport(const MpiTransport&) = delete;
  MpiTransport& operator=(const MpiTransport&) = delete;

  MPI_Comm comm() const { return comm_; }

  /// Waits inside a step: polls, then gives the core away between polls, since the peer may need it. (Open
  /// MPI's own waits spin unless it was told of more ranks than cores; beside another busy process that costs
  /// whole time slices.) A peer that never answers is the watchdog's business.
  static void wait(std::span<MPI_Request> requests) {
    for (int polls = 0;; ++polls) {
      int done = 0;
      MPI_CHECK(MPI_Testall(static_cast<int>(requests.size()), requests.data(), &done, MPI_STATUSES_IGNORE));
      if (done != 0) return;
      if (polls >= kPollsBeforeYield) sched_yield();
    }
  }
  void send(const float* data, int64_t count, int peer) override { send(data, count, peer, kReduceTag); }
  void send(const float* data, int64_t count, int peer, int tag) {
    MPI_Request request;
    MPI_CHECK(MPI_Isend(data, static_cast<int>(count), MPI_FLOAT, peer, tag, comm_, &request));
    wait({&request, 1});
  }
  void receive(float* data, int64_t count, int peer) override {
    MPI_Request request;
    MPI_CHECK(MPI_Irecv(data, static_cast<int>(count), MPI_FLOAT, peer, kReduceTag, comm_, &request));
    wait({&request, 1});
  }
  void exchange(const float* mine, int64_t mine_count, float* theirs, int64_t their_count,
                int peer) override {
    std::array<MPI_Request, 2> requests;
    MPI_CHECK(
        MPI_Irecv(theirs, static_cast<int>(their_count), MPI_FLOAT, peer, kReduceTag, comm_, &requests[0]));
    MPI_CHECK(
        MPI_Isend(mine, static_cast<int>(mine_count), MPI_FLOAT, peer, kReduceTag, comm_, &requests[1]));
    wait(requests);
  }

 private:
  MPI_Comm comm_ = MPI_COMM_NULL;
};

class MpiProcessGroup final : public ProcessGroup {
 public:
  explicit MpiProcessGroup(const MpiHostGroup& host)
      : rank_(host.rank()),
        size_(host.size()),
        transport_(host.comm()),
        tree_sum_(rank_, size_, transport_) {}

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::string name() const override { return "mpi"; }
  std::string all_reduce_algorithm(int64_t bytes) const override {
    const bool small = bytes <= TreeSum::kSmallCount * static_cast<int64_t>(sizeof(float));
    return small ? "exchange of everything" : "exchange of halves";
  }

  void all_reduce_sum(const Tensor& tensor) override {
    TRIREME_CHECK(tensor.contiguous());
    const int64_t count = tensor.size();
    if (tensor.dtype == DType::f32) {
      tree_sum_.sum(tensor.as<float>(), count);
      return;
    }
    if (static_cast<int64_t>(wide_.size()) < count) wide_.resize(count);
    convert_to_f32(tensor.data, tensor.dtype, count, wide_.data());
    tree_sum_.sum(wide_.data(), count);
    convert_from_f32(wide_.data(), count, tensor.dtype, tensor.data);
  }

  void gather_cols(const Tensor& part, const Tensor& whole) override {
    TRIREME_CHECK(part.contiguous());
    if (rank_ != 0) {
      transport_.send(part.as<float>(), part.size(), 0, kColumnsTag);
      return;
    }
    CHECK_EQ(whole.rows, part.rows);
    CHECK_EQ(whole.cols, part.cols * size_);
    for (int64_t row = 0; row < part.rows; ++row) {
      std::memcpy(whole.as<float>() + row * whole.row_stride, part.as<float>() + row * part.row_stride,
                  static_cast<size_t>(part.cols) * sizeof(float));
    }
    MPI_Datatype columns;
    MPI_CHECK(MPI_Type_vector(static_cast<int>(part.rows), static_cast<int>(part.cols),
                              static_cast<int>(whole.row_stride), MPI_FLOAT, &columns));
    MPI_CHECK(MPI_Type_commit(&columns));
    for (int peer = 1; peer < size_; ++peer) {
      MPI_Request request;
      MPI_CHECK(MPI_Irecv(whole.as<float>() + peer * part.cols, 1, columns, peer, kColumnsTag,
                          transport_.comm(), &request));
      transport_.wait({&request, 1});
    }
    MPI_CHECK(MPI_Type_free(&columns));
  }

  void broadcast(const Tensor& tensor) override {
    TRIREME_CHECK(tensor.contiguous());
    MPI_Request request;
    MPI_CHECK(
        MPI_Ibcast(tensor.data, static_cast<int>(tensor.bytes()), MPI_BYTE, 0, transport_.comm(), &request));
    transport_.wait({&request, 1});
  }

 private:
  int rank_, size_;
  MpiTransport transport_;
  TreeSum tree_sum_;
  std::vector<float> wide_;  // a bf16 or f16 tensor in f32
};

bool launched_by_mpi() {
  // Open MPI's mpirun, PMIx launchers (srun --mpi=pmix, prte), PMI-1/2 launchers.
  return std::getenv("OMPI_COMM_WORLD_SIZE") != nullptr || std::getenv("PMIX_RANK") != nullptr ||
         std::getenv("PMI_RANK") != nullptr;
}

PlaceOnHost place_on_host() {
  MPI_Comm host = MPI_COMM_NULL;
  MPI_CHECK(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host));
  PlaceOnHost place;
  MPI_CHECK(MPI_Comm_rank(host, &place.rank));
  MPI_CHECK(MPI_Comm_size(host, &place.size));
  MPI_CHECK(MPI_Comm_free(&host));
  return place;
}

}  // namespace

std::string message_library() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = "";
  int length = 0;
  MPI_CHECK(MPI_Get_library_version(text, &length));
  // Open MPI names its package and the machine it was built on, too: up to the first comma is enough.
  const std::string all(text, static_cast<size_t>(length));
  return all.substr(0, all.find(','));
}

absl::StatusOr<std::unique_ptr<HostGroup>> create_world(int* argc, char*** argv) {
  if (!launched_by_mpi()) return create_single_host_group();
  int provided = 0;
  // SERIALIZED: the engine's thread is not the main thread, but it is the only one that calls.
  if (MPI_Init_thread(argc, argv, MPI_THREAD_SERIALIZED, &provided) != MPI_SUCCESS) {
    return absl::InternalError("MPI_Init_thread failed");
  }
  if (provided < MPI_THREAD_SERIALIZED) {
    return absl::FailedPreconditionError("this MPI gives less than MPI_THREAD_SERIALIZED");
  }
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  auto world = std::make_unique<MpiHostGroup>(MPI_COMM_WORLD, place_on_host(), true);
  process_name() = absl::StrCat("rank ", world->rank(), " of ", world->size());
  return world;
}

std::unique_ptr<ProcessGroup> create_mpi_process_group(HostGroup& host) {
  if (host.size() == 1) return create_single_process_group();
  return std::make_unique<MpiProcessGroup>(dynamic_cast<MpiHostGroup&>(host));
}

}  // namespace trireme
