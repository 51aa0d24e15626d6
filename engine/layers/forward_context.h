#pragma once

#include "engine/parallel/process_group.h"
#include "engine/runner/collective_scope.h"
#include "engine/runner/step_phases.h"
#include "engine/runner/step_progress.h"
#include "engine/runner/workspace.h"
#include "kernels/backend.h"

namespace trireme {

/// All that a layer may touch during one step.
struct ForwardContext {
  Backend& backend;
  ProcessGroup& group;
  KvCache& cache;
  Workspace& workspace;
  const RaggedBatch& batch;
  StepPhases& phases;
  StepProgress& progress;

  /// The sum over the ranks of the replica, counted and timed. Every collective of a forward goes through
  /// here.
  void all_reduce_sum(const Tensor& tensor) {
    if (group.size() == 1) return;
    const CollectiveScope collective(phases, progress, CollectiveKind::all_reduce);
    group.all_reduce_sum(tensor);
  }
};

}  // namespace trireme
