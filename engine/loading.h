#pragma once
// From an EngineConfig to everything a rank computes with: the stages of a start, each agreed on by all
// ranks.

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/device_placement.h"
#include "engine/engine.h"
#include "engine/models/causal_lm.h"
#include "engine/parallel/process_group.h"
#include "engine/runner/model_runner.h"
#include "kernels/backend.h"

namespace trireme {

/// A loaded rank. Members are destroyed from the last to the first, so each may use those before it.
struct LoadedRank {
  std::unique_ptr<Backend> backend;
  DevicePlacement placement;
  std::unique_ptr<ProcessGroup> group;
  std::unique_ptr<CausalLm> model;
  std::unique_ptr<KvCache> cache;
  DType compute_dtype = DType::f32;
  RunnerConfig runner;
  ByteLedger ledger;
  std::vector<std::string> notes;
};

/// Chooses backend and compute dtype, cuts the model, loads this rank's part, sizes the cache. Collective
/// over `group`: when any rank fails, all fail with its error.
absl::StatusOr<LoadedRank> load_rank(const EngineConfig& config, HostGroup& group);

/// Tokens that a context of the model may have.
int longest_context(const ModelConfig& model);

/// Resident bytes of this process, as the kernel counts them; -1 where it does not say.
int64_t resident_bytes();

}  // namespace trireme
