#pragma once
// The facade: one model on one rank of one replica. Knows token ids, not text; groups, not RPCs.

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/config.h"
#include "engine/device_placement.h"
#include "engine/parallel/process_group.h"
#include "engine/plan/byte_ledger.h"
#include "engine/plan/shard_plan.h"
#include "engine/request.h"
#include "engine/runner/collective_comparison.h"
#include "engine/runner/rank_telemetry.h"
#include "engine/runner/step_phases.h"
#include "engine/runner/step_progress.h"
#include "engine/scheduler/scheduler.h"
#include "engine/scheduler/step_plan.h"

namespace trireme {

struct EngineConfig {
  std::string model_dir;         // empty with dummy weights
  ModelConfig model;             // already read from model_dir/config.json
  std::string backend = "auto";  // auto, cpu, cuda
  int device = 0;                // GPU of the host's first rank: see place_on_device()
  std::optional<DevicePlacement> placement =
      {};                              // this rank's GPU, instead of a place found from `device` on
  std::string collectives = "auto";    // auto, nccl, mpi
  bool dummy_weights = false;          // drawn, not read: for benchmarks
  std::string compute_dtype = "auto";  // auto, f32, bf16, f16 (CUDA alone)
  int num_threads = 0;                 // 0: all that the process may use
  int max_num_seqs = 64;
  int max_step_tokens = 512;
  int max_context_len = 0;  // 0: the model's
  int block_size = 16;
  int64_t kv_memory_bytes = 0;  // 0: fitted to what is left
  int64_t leave_bytes = 0;      // of a device, that the fitted cache leaves to others in this process
  int local_ranks = 1;          // ranks that share this host's memory, those of other jobs included
  bool enable_prefix_cache = true;
  /// Plans that are launched before the tokens of an earlier one are read, beyond that one. By default 0
  /// where a launch returns when its step is done (CPU), and 1, which keeps a device busy meanwhile, where it
  /// works by itself.
  std::optional<int> steps_ahead;
  /// Decode steps are recorded at the start and replayed, where backend and group can (CUDA graphs).
  bool capture_decodes = true;
  /// Recording ends, on all ranks with the same step, when it has taken so long or so many bytes of a rank's
  /// device, which are set aside before the cache is fitted. What is not recorded runs all the same, slower.
  std::chrono::milliseconds capture_time{60'000};
  int64_t capture_bytes = kMostGraphBytes;
  int trace_steps = 0;  // so many last steps are kept in memory for gather_trace()
  int shard_rank = 0;   // with shard_size > 0: this process alone runs shard_rank of shard_size, its
  int shard_size = 0;   // communication replaced by nothing, to time a shard; outputs are wrong
  std::chrono::milliseconds load_timeout{1'800'000};  // for ranks to wait for each other while loading
  std::chrono::milliseconds plan_timeout{10'000};     // for a plan to reach the followers
};

class Engine {
 public:
  /// Loads this rank's part of the model and sizes the cache. `group` is the replica's; it must outlive the
  /// engine. Collective over `group`. Any error names file, tensor, got and wanted where there is one.
  static absl::StatusOr<std::unique_ptr<Engine>> create(const EngineConfig& config, HostGroup& group);
  ~Engine();

  // ---- leader (rank 0), one thread ----
  absl::Status submit(Request request);
  bool cancel(RequestHandle handle);
  bool has_work() const;
  /// Schedules, broadcasts and launches a step, or as many as steps_ahead allows, then waits for the oldest
  /// one and appends its tokens. False when there was nothing to run.
  absl::StatusOr<bool> step(std::vector<TokenOutput>& outputs);
  /// Tells the followers that the leader lives (kIdle), or that all is over (kStop).
  absl::Status broadcast_idle();
  absl::Status broadcast_stop();
  /// What every rank has to tell of itself, by rank. Waits for the followers, who answer between two plans:
  /// to be called now and then, and only while no plan is on its way. An error ends the engine's use.
  absl::StatusOr<std::vector<RankTelemetry>> gather_telemetry();

  /// What the ranks did in the last trace_steps steps, by rank; under the same conditions.
  absl::StatusOr<std::vector<RankTimeline>> gather_trace();

  // ---- followers, one thread ----
  /// Waits for one plan and runs it. False after kStop. DEADLINE_EXCEEDED when none came in time.
  absl::StatusOr<bool> follow(std::chrono::milliseconds deadline);

  SchedulerStats stats() const;
  /// On the leader: appends the handles of the requests that wait, the first in line first.
  void list_waiting(std::vector<RequestHandle>& handles) const;
  absl::Status check_integrity() const;
  const ByteLedger& ledger() const;
  /// Readable by any thread.
  const StepProgress& progress() const;
  /// Where the time of this rank's thread goes. Whoever runs the engine marks here what it does between two
  /// steps.
  StepPhases& phases();
  /// One sentence per decision the user should know of (a dtype that is not the checkpoint's, a shorter
  /// context).
  const std::vector<std::string>& notes() const;
  int max_context_len() const;
  DType compute_dtype() const;
  std::string backend_name() const;

 private:
  struct Impl;
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace trireme
