#pragma once
// Decode steps that a device has recorded: which sizes, and which one a plan fits.

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "engine/runner/step_inputs.h"
#include "engine/runner/step_marks.h"
#include "engine/scheduler/step_plan.h"
#include "kernels/backend.h"

namespace trireme {

/// A decode of num_seqs sequences, whose contexts are at most context_len tokens long.
struct DecodeShape {
  int32_t num_seqs = 0;
  int32_t context_len = 0;
  bool operator==(const DecodeShape&) const = default;
};

/// The shapes to capture. Numbers of sequences: 1, 2, 4, 8, then in steps of 8 up to 64, of 16 up to 128 and
/// of 32 up to 256, and the limit itself where that is less: at most seven rows, or a fifth, are padding.
/// Each for contexts of at most 4,096 tokens, 32,768, and so on up to the limit: the grid of a captured
/// attention is that of its longest context, whose parts end at once where a context is shorter. By rising
/// size.
std::vector<DecodeShape> decode_shapes(const StepPlanLimits& limits);

/// What a plan must fit; nullopt for one that is not made up of sequences with one query token each, all
/// sampled and without prompt log probabilities. Every rank finds the same.
std::optional<DecodeShape> decode_shape(const StepPlan& plan);

class DecodeGraphs {
 public:
  struct Captured {
    DecodeShape shape;
    StepInputs inputs;  // filled before each launch
    Tensor logits;      // of the sampled rows
    uint64_t num_collectives = 0;
    std::unique_ptr<Graph> graph;
    std::unique_ptr<Graph> marked_graph;  // the same with marks around its parts
    MarkedParts parts;
  };

  /// By rising num_seqs, then context_len.
  void add(Captured captured) { all_.push_back(std::move(captured)); }
  /// The smallest that the plan fits; null where none is.
  const Captured* find(const StepPlan& plan) const;
  size_t size() const { return all_.size(); }

 private:
  std::vector<Captured> all_;
};

}  // namespace trireme
