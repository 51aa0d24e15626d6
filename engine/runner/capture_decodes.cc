// What a runner does once at the start of a service: the largest steps, and the recording of decode steps.

#include <algorithm>
#include <chrono>

#include "absl/strings/str_format.h"
#include "engine/runner/model_runner.h"

namespace trireme {
namespace {

// What recorded steps leave of the device's memory: a driver that has none left cannot load a kernel.
constexpr int64_t kLeastAvailableBytes = int64_t{128} << 20;

StepCounts counts_of(const DecodeShape& shape, int32_t block_size) {
  StepCounts counts;
  counts.tokens = counts.seqs = counts.sampled = shape.num_seqs;
  counts.blocks_per_seq = (shape.context_len + block_size - 1) / block_size;
  counts.biases = int64_t{shape.num_seqs} * kMaxBiases;
  counts.banned = int64_t{shape.num_seqs} * kMaxBanned;
  return counts;
}

/// How far the limits have been used up, and the device's memory.
class CaptureBounds {
 public:
  CaptureBounds(const CaptureLimits& limits, const Backend& backend) : limits_(limits), backend_(backend) {}
  double seconds() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }
  bool in_time() const { return Clock::now() - start_ < limits_.time; }
  bool has_memory() const { return backend_.available_memory_bytes() >= kLeastAvailableBytes; }
  bool allow(int64_t taken) const { return in_time() && taken < limits_.bytes; }
  /// For people: which it was.
  std::string reached(int64_t taken) const {
    if (!in_time())
      return absl::StrFormat("their %.0f s are over", 1e-3 * static_cast<double>(limits_.time.count()));
    if (taken >= limits_.bytes)
      return absl::StrFormat("their %.1f MiB are used up", static_cast<double>(limits_.bytes) / (1 << 20));
    return "the device's memory, or a bound of another rank, is reached: a lower --kv-memory leaves room";
  }

 private:
  using Clock = std::chrono::steady_clock;
  const CaptureLimits& limits_;
  const Backend& backend_;
  const Clock::time_point start_ = Clock::now();
};

/// As many tokens at once as a step may have, of sequences that belong to nobody: they attend over block 0,
/// whatever it holds, and leave nothing there.
StepPlan largest_prefill(const StepPlanLimits& limits) {
  StepPlan plan;
  for (int32_t left = limits.max_num_tokens; left > 0 && plan.num_seqs() < limits.max_num_seqs;) {
    const int32_t length = std::min(left, limits.max_context_len);
    const int32_t num_blocks = (length + limits.block_size - 1) / limits.block_size;
    plan.slots.push_back(-1);
    plan.query_lens.push_back(length);
    plan.context_lens.push_back(length);
    plan.num_blocks.push_back(num_blocks);
    plan.block_tables.resize(plan.block_tables.size() + static_cast<size_t>(num_blocks), 0);
    plan.token_ids.resize(plan.token_ids.size() + static_cast<size_t>(length), 0);
    plan.sample.push_back(1);
    plan.sampling.emplace_back();
    left -= length;
  }
  return plan;
}

}  // namespace

StepInputs ModelRunner::inputs_for(const DecodeShape& shape) const {
  return StepInputs(counts_of(shape, config_.limits.block_size), memory_.inputs.data(), 1, shape.context_len);
}

void ModelRunner::compute_once(const StepPlan& plan, const StepInputs& inputs) {
  int32_t* const host = static_cast<int32_t*>(in_flight_[0].inputs.data());
  inputs.write(plan, config_.limits.block_size, host);
  inputs.copy_to_device(plan, host, backend_);
  enqueue(inputs.tensors(), StepOutputs(config_.limits, in_flight_[0].outputs.data()), true, nullptr);
  backend_.synchronize();
}

void ModelRunner::warm_up() {
  CHECK_EQ(num_launched_, 0u);
  if (!backend_.can_capture()) return;
  const PhaseScope whole(phases_, Phase::compute);
  const StepPlan prefill = largest_prefill(config_.limits);
  compute_once(prefill, inputs_for(prefill));
  compute_once(StepPlan(), inputs_for(DecodeShape{config_.limits.max_num_seqs, 1}));
}

bool ModelRunner::all_ranks(bool mine) {
  if (group_.size() == 1) return mine;
  workspace_.release(0);
  const Tensor against = workspace_.take(1, 1, DType::f32);
  float count = mine ? 0 : 1;
  backend_.copy_to_device(against.data, &count, sizeof count);
  group_.all_reduce_sum(against);
  backend_.copy_to_host(&count, against.data, sizeof count);
  backend_.synchronize();
  return count == 0;
}

absl::Status ModelRunner::capture(const DecodeShape& shape) {
  const StepInputs inputs = inputs_for(shape);
  const StepOutputs unused(config_.limits, in_flight_[0].outputs.data());
  DecodeGraphs::Captured captured{shape, inputs, Tensor(), 0, nullptr, nullptr, {}};
  const auto record = [&](MarkedParts* parts, std::unique_ptr<Graph>& into) {
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
  absl::Status status = record(nullptr, captured.graph);
  if (status.ok()) status = record(&captured.parts, captured.marked_graph);
  if (all_ranks(status.ok())) graphs_.add(std::move(captured));
  return status;
}

// Everything is computed once before anything is recorded: whatever a device chooses or allocates when it
// meets a shape is then in its place. Both happen in the same order on every rank.
absl::StatusOr<CaptureStats> ModelRunner::capture_decodes(const CaptureLimits& limits) {
  CHECK_EQ(num_launched_, 0u);
  CaptureStats stats;
  if (!backend_.can_capture() || !group_.can_be_captured()) return stats;
  const PhaseScope whole(phases_, Phase::compute);
  const CaptureBounds bounds(limits, backend_);
  std::vector<DecodeShape> shapes = decode_shapes(config_.limits);
  stats.num_shapes = static_cast<int>(shapes.size());
  for (size_t i = 0; i < shapes.size(); ++i) {
    compute_once(StepPlan(), inputs_for(shapes[i]));
    if (!all_ranks(bounds.in_time())) shapes.resize(i + 1);
  }
  const int64_t available = backend_.available_memory_bytes();
  const auto taken = [&] { return available - backend_.available_memory_bytes(); };
  for (const DecodeShape& shape : shapes) {
    const bool fits = graphs_.size() == 0 || bounds.allow(taken());
    if (!all_ranks(fits && bounds.has_memory())) break;
    const size_t before = graphs_.size();
    const absl::Status captured = capture(shape);
    if (!captured.ok() && captured.code() != absl::StatusCode::kResourceExhausted) return captured;
    if (graphs_.size() == before) break;  // here, or on another rank
  }
  stats.num_graphs = static_cast<int>(graphs_.size());
  stats.seconds = bounds.seconds();
  stats.bytes = taken();
  if (stats.num_graphs < stats.num_shapes) stats.ended = bounds.reached(stats.bytes);
  return stats;
}

}  // namespace trireme
