// Recording of decode steps at the start of a service.

#include <chrono>

#include "engine/runner/model_runner.h"

namespace trireme {
namespace {

StepCounts counts_of(const DecodeShape& shape, int32_t block_size) {
  StepCounts counts;
  counts.tokens = counts.seqs = counts.sampled = shape.num_seqs;
  counts.blocks_per_seq = (shape.context_len + block_size - 1) / block_size;
  counts.biases = int64_t{shape.num_seqs} * kMaxBiases;
  counts.banned = int64_t{shape.num_seqs} * kMaxBanned;
  return counts;
}

}  // namespace

// Everything is computed once before anything is recorded: whatever a device chooses or allocates when it
// meets a shape is then in its place. Both happen in the same order on every rank.
absl::StatusOr<CaptureStats> ModelRunner::capture_decodes() {
  CHECK_EQ(num_launched_, 0u);
  CaptureStats stats;
  if (!backend_.can_capture() || !group_.can_be_captured()) return stats;
  const PhaseScope whole(phases_, Phase::compute);
  const auto start = std::chrono::steady_clock::now();
  const int64_t available = backend_.available_memory_bytes();
  const StepPlan nobody;
  int32_t* const host = static_cast<int32_t*>(in_flight_[0].inputs.data());
  const StepOutputs unused(config_.limits, in_flight_[0].outputs.data());
  const int32_t block_size = config_.limits.block_size;
  const std::vector<DecodeShape> shapes = decode_shapes(config_.limits);
  const auto inputs_of = [&](const DecodeShape& shape) {
    return StepInputs(counts_of(shape, block_size), memory_.inputs.data(), 1, shape.context_len);
  };
  for (const DecodeShape& shape : shapes) {
    const StepInputs inputs = inputs_of(shape);
    inputs.write(nobody, block_size, host);
    inputs.copy_to_device(nobody, host, backend_);
    enqueue(inputs.tensors(), unused, true, nullptr);
    backend_.synchronize();
  }
  for (const DecodeShape& shape : shapes) {
    const StepInputs inputs = inputs_of(shape);
    DecodeGraphs::Captured captured{shape, inputs, Tensor(), 0, nullptr, nullptr, {}};
    const auto capture = [&](MarkedParts* parts, std::unique_ptr<Graph>& into) {
      const uint64_t num_collectives = progress_.collectives.load();
      bool fits = true;
      auto graph = backend_.capture([&] { fits = enqueue(inputs.tensors(), unused, true, parts); });
      if (!graph.ok()) return graph.status();
      CHECK_EQ(fits, true);
      into = *std::move(graph);
      captured.logits = whole_logits_;
      captured.num_collectives = progress_.collectives.load() - num_collectives;
      return absl::OkStatus();
    };
    if (absl::Status plain = capture(nullptr, captured.graph); !plain.ok()) return plain;
    if (absl::Status marked = capture(&captured.parts, captured.marked_graph); !marked.ok()) return marked;
    graphs_.add(std::move(captured));
  }
  stats.num_graphs = static_cast<int>(shapes.size());
  stats.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  stats.bytes = available - backend_.available_memory_bytes();
  return stats;
}

}  // namespace trireme
