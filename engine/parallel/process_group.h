#pragma once
// Ranks that work together. HostGroup: messages between processes, on host memory. ProcessGroup: sums and
// gathers of tensors inside a step. MPI is only in mpi_group.cc, NCCL only in nccl_group.cc.

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/tensor.h"

namespace trireme {

/// Processes that exchange small messages: plans, inventories, ids. One thread calls it (the one that created
/// it). Every wait has a deadline and gives DEADLINE_EXCEEDED naming the group, the rank and what was waited
/// for.
class HostGroup {
 public:
  virtual ~HostGroup() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  /// This process's number among those of the whole job that share its host, whatever group it was split
  /// into.
  virtual int local_rank() const = 0;
  /// How many those are.
  virtual int local_size() const = 0;

  /// `words` of `root` reach every rank. An idle receiver sleeps: it polls, then waits in steps of 50 us to 1
  /// ms.
  virtual absl::Status broadcast(std::vector<int32_t>& words, int root,
                                 std::chrono::milliseconds deadline) = 0;
  /// Bytes of every rank, by rank, on the root; empty elsewhere.
  virtual absl::StatusOr<std::vector<std::string>> gather(const std::string& bytes, int root,
                                                          std::chrono::milliseconds deadline) = 0;
  virtual absl::Status barrier(std::chrono::milliseconds deadline) = 0;
  /// Ranks that give the same color form a group, ordered by key. Collective over this group.
  virtual std::unique_ptr<HostGroup> split(int color, int key) = 0;
};

/// The collectives of a step. Enqueued on the backend's stream; over MPI they are complete on return.
/// Programmer's errors (sizes that differ) abort; a dead peer ends the process, by the watchdog if nothing
/// else.
class ProcessGroup {
 public:
  virtual ~ProcessGroup() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  /// "single", "mpi", "mpi staged over host memory", "nccl", "isolated".
  virtual std::string name() const = 0;
  /// Whether Backend::capture() may record its collectives: they neither wait nor need the host.
  virtual bool can_be_captured() const { return false; }

  /// tensor = sum over the ranks, the same bits on each. Over MPI in one fixed order whatever the size, in
  /// f32 and rounded once; NCCL chooses order and rounding by the size. Contiguous; f32, bf16 or f16.
  virtual void all_reduce_sum(const Tensor& tensor) = 0;
  /// Columns of all ranks side by side, on rank 0 only. part: [rows, cols]; whole: [rows, size * cols]
  /// (ignored on the other ranks). f32.
  virtual void gather_cols(const Tensor& part, const Tensor& whole) = 0;
  /// Contiguous bytes of rank 0 on every rank.
  virtual void broadcast(const Tensor& tensor) = 0;

  /// How all_reduce_sum() treats a tensor of so many bytes, for people: an algorithm or a library's version.
  virtual std::string all_reduce_algorithm(int64_t /*bytes*/) const { return name(); }
  /// Memory of `backend` for tensors that enter collectives: of the kind that the group moves fastest,
  /// zeroed, as much on every rank as the one that asks for most. Collective; the group must outlive it.
  /// Tensors that enter the same collective lie at the same offset of each rank's buffer. RESOURCE_EXHAUSTED
  /// on all ranks when one has no room.
  virtual absl::StatusOr<Buffer> communication_buffer(Backend& backend, size_t bytes) {
    return backend.allocate(bytes);
  }
};

/// This process's world, under mpirun or alone. Starts MPI where the build has it and the process was
/// launched by it, and says so in process_name(). The returned group ends MPI with its destruction, so it
/// must outlive every group split from it.
absl::StatusOr<std::unique_ptr<HostGroup>> create_world(int* argc, char*** argv);
/// Name and version of the library that carries a world's messages; "none" in builds without one.
std::string message_library();
/// A world of one.
std::unique_ptr<HostGroup> create_single_host_group();

std::unique_ptr<ProcessGroup> create_single_process_group();
/// Rank `rank` of `size` by itself, its communication replaced by nothing: for timing one shard of a model
/// that has no room here. What it computes is wrong.
std::unique_ptr<ProcessGroup> create_isolated_process_group(int rank, int size, Backend& backend);
/// Collectives among the ranks of `host`, on tensors in host memory.
std::unique_ptr<ProcessGroup> create_mpi_process_group(HostGroup& host);
/// `group`, whose tensors are in host memory, for tensors in memory of `backend`, which must outlive it: each
/// is copied to the host and back.
std::unique_ptr<ProcessGroup> create_staged_process_group(std::unique_ptr<ProcessGroup> group,
                                                          Backend& backend);

/// Whether the build has NCCL.
bool has_nccl();
/// Collectives among the ranks of `host`, each with a GPU of its own, which is the thread's current device;
/// tensors in memory of `backend`, work on its stream. Collective over `host`; `host` and `backend` must
/// outlive it, and whatever was captured with it must be gone before it is. FAILED_PRECONDITION when ranks
/// share a GPU or have different libraries, UNAVAILABLE when NCCL cannot start; a rank that hangs in starting
/// it ends its process at the deadline.
absl::StatusOr<std::unique_ptr<ProcessGroup>> create_nccl_process_group(HostGroup& host, Backend& backend,
                                                                        std::chrono::milliseconds deadline);

}  // namespace trireme
