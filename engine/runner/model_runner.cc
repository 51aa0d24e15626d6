#include "engine/runner/model_runner.h"

#include <algorithm>
#include <utility>

namespace trireme {
namespace {

/// Bytes of the arena: each tensor taken from it is rounded up, and no step takes more than 16.
int64_t arena_bytes(const RunnerConfig& config) {
  return 16 * Workspace::kAlignBytes + activation_bytes(config.shape, config.layout, config.tp_rank,
                                                        config.limits.max_num_tokens,
                                                        config.limits.max_num_seqs);
}

size_t word_bytes(int64_t num_words) { return static_cast<size_t>(num_words) * sizeof(int32_t); }

int64_t input_words(const RunnerConfig& config) {
  return StepInputs::num_words(StepCounts::largest(config.limits));
}

}  // namespace

absl::StatusOr<ModelRunner::DeviceMemory> ModelRunner::allocate(const RunnerConfig& config, Backend& backend,
                                                                ProcessGroup& group) {
  const StepPlanLimits& limits = config.limits;
  DeviceMemory memory;
  // Collectives work on the activations. Nothing may fail before the ranks have this in common.
  auto activations = group.communication_buffer(backend, static_cast<size_t>(arena_bytes(config)));
  absl::Status status = activations.status();
  if (activations.ok()) memory.activations = *std::move(activations);
  const auto take = [&](Buffer& buffer, size_t bytes) {
    auto taken = status.ok() ? backend.allocate(bytes) : status;
    if (taken.ok()) buffer = *std::move(taken);
    status.Update(taken.status());
  };
  take(memory.inputs, word_bytes(input_words(config)));
  take(memory.outputs, word_bytes(StepOutputs::num_row_words(limits)));
  take(memory.last_tokens, word_bytes(limits.max_num_seqs));
  if (!status.ok()) return status;
  const int64_t count_bytes = token_count_bytes(config.shape, config.tp_rank, limits.max_num_seqs);
  auto counts = backend.allocate_sparse(static_cast<size_t>(count_bytes));
  if (!counts.ok()) return counts.status();
  memory.token_counts = *std::move(counts);
  return memory;
}

absl::StatusOr<ModelRunner::InFlight> ModelRunner::allocate_in_flight(const RunnerConfig& config,
                                                                      Backend& backend) {
  InFlight step;
  auto inputs = backend.allocate_staging(word_bytes(input_words(config)));
  if (!inputs.ok()) return inputs.status();
  auto outputs = backend.allocate_staging(word_bytes(StepOutputs::num_words(config.limits)));
  if (!outputs.ok()) return outputs.status();
  step.inputs = *std::move(inputs);
  step.outputs = *std::move(outputs);
  step.done = backend.create_fence();
  step.results.sampled_ids.reserve(config.limits.max_num_seqs);
  step.results.logprobs.reserve(config.limits.max_num_seqs);
  return step;
}

absl::StatusOr<std::unique_ptr<ModelRunner>> ModelRunner::create(const RunnerConfig& config, Backend& backend,
                                                                 ProcessGroup& group, const CausalLm& model,
                                                                 KvCache& cache, StepPhases& phases,
                                                                 StepProgress& progress) {
  auto memory = allocate(config, backend, group);
  if (!memory.ok()) return memory.status();
  std::vector<InFlight> in_flight;
  for (int step = 0; step <= config.steps_ahead; ++step) {
    auto allocated = allocate_in_flight(config, backend);
    if (!allocated.ok()) return allocated.status();
    in_flight.push_back(*std::move(allocated));
  }
  const int64_t widest =
      std::max<int64_t>(config.shape.hidden_size, 2 * int64_t{config.layout.intermediate_per_rank});
  absl::Status reserved =
      backend.reserve_workspace(config.limits.max_num_tokens, config.limits.max_num_seqs, widest,
                                int64_t{config.layout.vocab_per_rank} * config.layout.tp_size);
  if (!reserved.ok()) return reserved;
  return std::unique_ptr<ModelRunner>(new ModelRunner(config, backend, group, model, cache, phases, progress,
                                                      *std::move(memory), std::move(in_flight)));
}

ModelRunner::ModelRunner(const RunnerConfig& config, Backend& backend, ProcessGroup& group,
                         const CausalLm& model, KvCache& cache, StepPhases& phases, StepProgress& progress,
                         DeviceMemory memory, std::vector<InFlight> in_flight)
    : config_(config),
      backend_(backend),
      group_(group),
      model_(model),
      cache_(cache),
      phases_(phases),
      progress_(progress),
      memory_(std::move(memory)),
      workspace_(std::move(memory_.activations), backend.activation_dtype()),
      outputs_(config.limits, memory_.outputs.data()),
      last_tokens_(memory_.last_tokens.data(), DType::i32, 1, config.limits.max_num_seqs),
      in_flight_(std::move(in_flight)) {
  // Collectives that keep the host are timed by its own clock.
  if (!group.can_be_captured()) return;
  const int num_parts = StepMarks::num_parts(config.shape.num_layers);
  auto marks = backend.create_marks(num_parts + 1);
  if (marks == nullptr) return;
  marks_ = std::make_unique<StepMarks>(std::move(marks), num_parts, in_flight_.size(), phases);
  enqueued_parts_.reserve(static_cast<size_t>(num_parts));
}

// What is in flight reads and writes memory that goes now.
ModelRunner::~ModelRunner() { backend_.synchronize(); }

void ModelRunner::launch(const StepPlan& plan) {
  CHECK_LT(num_launched_ - num_collected_, in_flight_.size());
  InFlight& step = in_flight_[num_launched_++ % in_flight_.size()];
  const auto any_row = [&](auto&& of_interest) {
    return std::any_of(plan.sampling.begin(), plan.sampling.end(), of_interest);
  };
  step.num_sampled = plan.num_sampled();
  step.num_prompt_logprobs = plan.num_prompt_logprobs();
  step.has_top_logprobs = any_row([](const SamplingRow& row) { return row.num_top_logprobs > 0; });

  const PhaseScope running(phases_, Phase::upload);  // and, entered below, compute and sample
  const DecodeGraphs::Captured* const captured = graphs_.find(plan);
  const StepInputs inputs = captured != nullptr ? captured->inputs : inputs_for(plan);
  int32_t* const host = static_cast<int32_t*>(step.inputs.data());
  inputs.write(plan, config_.limits.block_size, host);
  inputs.copy_to_device(plan, host, backend_);
  if (group_.rank() == 0) set_token_counts(plan);

  phases_.enter(Phase::compute);
  const StepOutputs outputs(config_.limits, step.outputs.data());
  step.marks = {StepKind::enqueued, nullptr, progress_.collectives.load(std::memory_order_relaxed),
                plan.step};
  if (captured != nullptr) {
    replay(*captured, step.marks);
  } else {
    MarkedParts* const parts =
        marks_ != nullptr && marks_->choose(StepKind::enqueued) ? &enqueued_parts_ : nullptr;
    const bool counts = any_row([](const SamplingRow& row) { return row.has_penalties(); });
    if (enqueue(inputs.tensors(), outputs, counts, parts)) step.marks.parts = parts;
  }
  if (plan.num_sampled() > 0) {
    if (step.has_top_logprobs && group_.rank() == 0) compute_top_logprobs(inputs.tensors(), outputs);
    whole_logits_ = whole_logits_.slice_rows(0, plan.num_sampled());
    // Ids and their log probabilities.
    backend_.copy_to_host(outputs.rows(0).ids.data, outputs_.rows(0).ids.data,
                          word_bytes(2 * int64_t{config_.limits.max_num_seqs}));
  }
  step.done->record();
}

StepInputs ModelRunner::inputs_for(const StepPlan& plan) const {
  return StepInputs(StepCounts::of(plan), memory_.inputs.data(),
                    *std::max_element(plan.query_lens.begin(), plan.query_lens.end()),
                    *std::max_element(plan.context_lens.begin(), plan.context_lens.end()));
}

void ModelRunner::replay(const DecodeGraphs::Captured& captured, MarkedStep& marks) {
  marks.kind = StepKind::replayed;
  const bool marked = marks_ != nullptr && marks_->choose(StepKind::replayed);
  if (marked) marks.parts = &captured.parts;
  progress_.count_collectives(captured.num_collectives);
  (marked ? captured.marked_graph : captured.graph)->launch();
  whole_logits_ = captured.logits;
}

/// compute(), whose phases are the device's where it works by itself. False where they are more than can be
/// marked: see StepMarks.
bool ModelRunner::enqueue(const StepTensors& step, const StepOutputs& host, bool count_tokens,
                          MarkedParts* parts) {
  if (marks_ == nullptr) {
    compute(step, host, count_tokens);
    return true;
  }
  marks_->begin(parts, progress_.collectives.load(std::memory_order_relaxed));
  compute(step, host, count_tokens);
  return marks_->end();
}

void ModelRunner::compute(const StepTensors& step, const StepOutputs& host, bool count_tokens) {
  workspace_.release(0);
  ForwardContext context{backend_, group_, cache_, workspace_, step.batch, phases_, progress_};
  const Tensor hidden = workspace_.take(step.batch.num_tokens, config_.shape.hidden_size);
  backend_.resolve_last_tokens(last_tokens_, step.ids);
  model_.forward(context, step.ids, hidden);
  if (step.logprob_rows.cols > 0) compute_prompt_logprobs(context, hidden, step, host);
  if (step.sampled_rows.cols == 0) return;
  whole_logits_ = whole_logits(context, hidden, step.sampled_rows);
  sample(step, count_tokens);
}

void ModelRunner::wait_for(InFlight& step) {
  if (marks_ == nullptr) return step.done->wait();
  const int64_t begin = phases_.now();
  step.done->wait();
  marks_->finish(step.marks, phases_.now() - begin);
}

const StepResults& ModelRunner::collect() {
  CHECK_LT(num_collected_, num_launched_);
  InFlight& step = in_flight_[num_collected_++ % in_flight_.size()];
  wait_for(step);
  const StepOutputs outputs(config_.limits, step.outputs.data());
  const StepOutputs::Rows rows = outputs.rows(step.num_sampled);
  const StepOutputs::PromptRows prompt = outputs.prompt_rows(0, step.num_prompt_logprobs);
  const auto copy = [](const Tensor& from, auto& to) {
    using Element = typename std::decay_t<decltype(to)>::value_type;
    to.assign(from.as<const Element>(), from.as<const Element>() + from.size());
  };
  copy(rows.ids, step.results.sampled_ids);
  copy(rows.logprobs, step.results.logprobs);
  if (group_.rank() != 0) return step.results;
  StepLogprobs& more = step.results.step_logprobs;
  if (step.has_top_logprobs) {
    copy(rows.top_ids, more.top_ids);
    copy(rows.top_logprobs, more.top_logprobs);
  }
  copy(prompt.logprobs, more.prompt_logprobs);
  copy(prompt.top_ids, more.prompt_top_ids);
  copy(prompt.top_logprobs, more.prompt_top_logprobs);
  return step.results;
}

Tensor ModelRunner::token_counts() const {
  return {memory_.token_counts.data(), DType::i32, config_.limits.max_num_seqs, config_.shape.vocab_size};
}

/// Of sequences that are new in their slots.
void ModelRunner::set_token_counts(const StepPlan& plan) {
  const int32_t* history = plan.history_ids.data();
  for (int32_t s = 0, i = 0; s < plan.num_seqs(); ++s) {
    if (plan.sample[s] == 0) continue;
    const SamplingRow& row = plan.sampling[i++];
    const int64_t num_prompt = row.num_history_prompt, num_output = row.num_history_output;
    if (row.has_penalties() && plan.slots[s] >= 0 && num_prompt + num_output > 0)
      backend_.set_token_counts(token_counts(), plan.slots[s], history, num_prompt, history + num_prompt,
                                num_output);
    history += num_prompt + num_output;
  }
}

std::vector<float> ModelRunner::last_logits() {
  const int64_t vocab = config_.shape.vocab_size;
  std::vector<float> all(static_cast<size_t>(whole_logits_.rows * vocab));
  for (int64_t row = 0; row < whole_logits_.rows; ++row) {
    backend_.copy_to_host(all.data() + row * vocab,
                          whole_logits_.as<float>() + row * whole_logits_.row_stride,
                          static_cast<size_t>(vocab) * sizeof(float));
  }
  backend_.synchronize();
  return all;
}

}  // namespace trireme
