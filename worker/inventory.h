#pragma once
// What this process finds when it starts: its model's shape, its host, its processors.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/config.h"
#include "engine/device_placement.h"
#include "engine/parallel/process_group.h"
#include "trireme/v1/cluster.pb.h"
#include "trireme/v1/job.pb.h"
#include "worker/options.h"

namespace trireme::worker {

/// config.json of the model that is to be served, and the name clients call it by.
struct LocalModel {
  ModelConfig config;
  std::string name;
};
absl::StatusOr<LocalModel> identify_model(const WorkerOptions& options);

std::string host_name();

/// What this rank computes on, as the engine will choose it.
struct LocalDevice {
  std::string name;          // cpu, cuda
  std::string description;   // for people
  int64_t memory_bytes = 0;  // that it could get now; of a GPU that ranks share, this one's part
  bool shares_host_memory = true;
  DType compute_dtype = DType::f32;
  DType activation_dtype = DType::f32;
};
/// For this process of `world`; `named`: the GPU that --device names for it alone, if it does. Errors are
/// those of `named`, `model` and choose_backend().
absl::StatusOr<LocalDevice> find_device(const WorkerOptions& options, const HostGroup& world,
                                        const absl::StatusOr<std::optional<DevicePlacement>>& named,
                                        const absl::StatusOr<LocalModel>& model);

/// This rank's report to world rank 0: host, device, memory, processors, and the hash of what `model` found,
/// or the error that it or `device` met.
v1::RankReport make_rank_report(int rank, const WorkerOptions& options,
                                const absl::StatusOr<LocalModel>& model,
                                const absl::StatusOr<LocalDevice>& device);

/// The model as the planner and a coordinator need it, on such a device.
v1::ModelInfo describe_model(const LocalModel& model, const LocalDevice& device,
                             const std::string& tokenizer_hash);

}  // namespace trireme::worker
