#include "engine/runner/model_runner.h"

#include <algorithm>
#include <utility>

namespace trireme {
namespace {

int32_t blocks_per_sequence(const StepPlanLimits& limits) {
  return (limits.max_context_len + limits.block_size - 1) / limits.block_size;
}

/// int32 words of the largest plan on the device.
int64_t max_plan_words(const StepPlanLimits& limits) {
  const int64_t tokens = limits.max_num_tokens, seqs = limits.max_num_seqs;
  return 5 * tokens + 3 * seqs + 1 + seqs * blocks_per_sequence(limits);
}

/// The same of Results.
int64_t max_result_words(const StepPlanLimits& limits) {
  return (3 + 2 * kMaxTopLogprobs) * int64_t{limits.max_num_seqs};
}

}  // namespace

absl::StatusOr<std::unique_ptr<ModelRunner>> ModelRunner::create(const RunnerConfig& config, Backend& backend,
                                                                 ProcessGroup& group, const CausalLm& model,
                                                                 KvCache& cache, StepPhases& phases,
                                                                 StepProgress& progress) {
  const StepPlanLimits& limits = config.limits;
  // Each tensor taken from the arena is rounded up to Workspace::kAlignElements; no step takes more than 16.
  const int64_t elements =
      16 * Workspace::kAlignElements + activation_elements(config.shape, config.layout, config.tp_rank,
                                                           limits.max_num_tokens, limits.max_num_seqs);
  auto arena = backend.allocate(static_cast<size_t>(elements) * sizeof(float));
  if (!arena.ok()) return arena.status();
  const int64_t index_words = max_plan_words(limits) + max_result_words(limits);
  auto indices = backend.allocate(static_cast<size_t>(index_words) * sizeof(int32_t));
  if (!indices.ok()) return indices.status();
  const int64_t count_bytes = token_count_bytes(config.shape, config.tp_rank, limits.max_num_seqs);
  auto counts = backend.allocate_sparse(static_cast<size_t>(count_bytes));
  if (!counts.ok()) return counts.status();
  const int64_t widest =
      std::max<int64_t>(config.shape.hidden_size, 2 * int64_t{config.layout.intermediate_per_rank});
  absl::Status reserved =
      backend.reserve_workspace(limits.max_num_tokens, limits.max_num_seqs, widest,
                                int64_t{config.layout.vocab_per_rank} * config.layout.tp_size);
  if (!reserved.ok()) return reserved;
  return std::unique_ptr<ModelRunner>(new ModelRunner(config, backend, group, model, cache, phases, progress,
                                                      Workspace(*std::move(arena)), *std::move(indices),
                                                      *std::move(counts)));
}

ModelRunner::ModelRunner(const RunnerConfig& config, Backend& backend, ProcessGroup& group,
                         const CausalLm& model, KvCache& cache, StepPhases& phases, StepProgress& progress,
                         Workspace workspace, Buffer index_memory, Buffer token_counts)
    : config_(config),
      backend_(backend),
      group_(group),
      model_(model),
      cache_(cache),
      phases_(phases),
      progress_(progress),
      workspace_(std::move(workspace)),
      index_memory_(std::move(index_memory)),
      token_counts_(std::move(token_counts)),
      last_tokens_(config.limits.max_num_seqs, 0) {
  workspace_bytes_ = workspace_.capacity_bytes();
  staging_.reserve(max_plan_words(config.limits));
  results_.resize(static_cast<size_t>(config.steps_ahead) + 1);
  for (StepResults& step : results_) {
    step.sampled_ids.reserve(config.limits.max_num_seqs);
    step.logprobs.reserve(config.limits.max_num_seqs);
  }
  counted_slots_.reserve(config.limits.max_num_seqs);
  num_top_.reserve(config.limits.max_num_seqs);
}

const StepResults& ModelRunner::collect() {
  CHECK_LT(num_collected_, num_launched_);
  return results_[num_collected_++ % results_.size()];
}

void ModelRunner::launch(const StepPlan& plan) {
  CHECK_LT(num_launched_ - num_collected_, results_.size());
  step_ = &results_[num_launched_++ % results_.size()];
  workspace_.release(0);
  RaggedBatch batch;
  phases_.enter(Phase::upload);
  const UploadedPlan uploaded = upload(plan, batch);
  phases_.enter(Phase::compute);
  ForwardContext context{backend_, group_, cache_, workspace_, batch, phases_, progress_};
  const Tensor hidden = workspace_.take(plan.num_tokens(), config_.shape.hidden_size);
  model_.forward(context, uploaded.ids, hidden);
  if (plan.num_prompt_logprobs() > 0) compute_prompt_logprobs(context, plan, hidden, uploaded);
  step_->sampled_ids.resize(plan.num_sampled());
  step_->logprobs.resize(plan.num_sampled());
  if (plan.num_sampled() == 0) return;
  whole_logits_ = whole_logits(context, hidden, uploaded.sampled_rows);
  sample(plan);
}

// One contiguous copy: tokens | positions | slots | cu_query_lens | context_lens | block_tables | sampled
// rows | rows of prompt logprobs | their targets.
ModelRunner::UploadedPlan ModelRunner::upload(const StepPlan& plan, RaggedBatch& batch) {
  const int64_t num_tokens = plan.num_tokens(), num_seqs = plan.num_seqs(), num_sampled = plan.num_sampled();
  const int64_t num_logprobs = plan.num_prompt_logprobs();
  const int32_t block_size = config_.limits.block_size;
  const int64_t max_blocks = *std::max_element(plan.num_blocks.begin(), plan.num_blocks.end());
  staging_.resize(3 * num_tokens + 2 * num_seqs + 1 + num_seqs * max_blocks + num_sampled + 2 * num_logprobs);
  int32_t* tokens = staging_.data();
  int32_t* positions = tokens + num_tokens;
  int32_t* slots = positions + num_tokens;
  int32_t* cu_query_lens = slots + num_tokens;
  int32_t* context_lens = cu_query_lens + num_seqs + 1;
  int32_t* tables = context_lens + num_seqs;
  int32_t* rows = tables + num_seqs * max_blocks;
  int32_t* logprob_rows = rows + num_sampled;
  int32_t* logprob_targets = logprob_rows + num_logprobs;
  std::copy(plan.logprob_tokens.begin(), plan.logprob_tokens.end(), logprob_rows);
  std::copy(plan.logprob_targets.begin(), plan.logprob_targets.end(), logprob_targets);
  int64_t token = 0, table_begin = 0, row = 0;
  cu_query_lens[0] = 0;
  for (int64_t s = 0; s < num_seqs; ++s) {
    const int32_t* blocks = plan.block_tables.data() + table_begin;
    const int32_t first_position = plan.context_lens[s] - plan.query_lens[s];
    for (int32_t i = 0; i < plan.query_lens[s]; ++i, ++token) {
      const int32_t id = plan.token_ids[token], position = first_position + i;
      tokens[token] = id == kLastToken ? last_tokens_[plan.slots[s]] : id;
      positions[token] = position;
      slots[token] =
          plan.slots[s] < 0 ? -1 : blocks[position / block_size] * block_size + position % block_size;
    }
    cu_query_lens[s + 1] = static_cast<int32_t>(token);
    context_lens[s] = plan.context_lens[s];
    std::copy(blocks, blocks + plan.num_blocks[s], tables + s * max_blocks);
    std::fill(tables + s * max_blocks + plan.num_blocks[s], tables + (s + 1) * max_blocks, 0);
    table_begin += plan.num_blocks[s];
    if (plan.sample[s] != 0) rows[row++] = static_cast<int32_t>(token - 1);
    batch.max_query_len = std::max<int64_t>(batch.max_query_len, plan.query_lens[s]);
    batch.max_context_len = std::max<int64_t>(batch.max_context_len, plan.context_lens[s]);
  }
  backend_.copy_to_device(index_memory_.data(), staging_.data(), staging_.size() * sizeof(int32_t));
  const auto on_device = [&](const int32_t* host, int64_t num_rows, int64_t num_cols) {
    return Tensor(static_cast<int32_t*>(index_memory_.data()) + (host - staging_.data()), DType::i32,
                  num_rows, num_cols);
  };
  batch.positions = on_device(positions, 1, num_tokens);
  batch.slots = on_device(slots, 1, num_tokens);
  batch.cu_query_lens = on_device(cu_query_lens, 1, num_seqs + 1);
  batch.context_lens = on_device(context_lens, 1, num_seqs);
  batch.block_tables = on_device(tables, num_seqs, max_blocks);
  batch.num_tokens = num_tokens;
  batch.num_seqs = num_seqs;
  return {on_device(tokens, 1, num_tokens), on_device(rows, 1, num_sampled),
          on_device(logprob_rows, 1, num_logprobs), on_device(logprob_targets, 1, num_logprobs)};
}

ModelRunner::Results ModelRunner::results(int64_t num_rows) const {
  const int64_t seqs = config_.limits.max_num_seqs;
  int32_t* base = static_cast<int32_t*>(index_memory_.data()) + max_plan_words(config_.limits);
  const auto vector = [&](int64_t index, DType dtype) {
    return Tensor(base + index * seqs, dtype, 1, num_rows);
  };
  const auto table = [&](int64_t index, DType dtype) {
    return Tensor(base + (3 + index * kMaxTopLogprobs) * seqs, dtype, num_rows, kMaxTopLogprobs);
  };
  return {vector(0, DType::i32), vector(1, DType::f32), vector(2, DType::f32), table(0, DType::i32),
          table(1, DType::f32)};
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
