#include "engine/runner/model_runner.h"

#include <algorithm>
#include <utility>

namespace trireme {
namespace {

int32_t blocks_per_sequence(const StepPlanLimits& limits) {
  return (limits.max_context_len + limits.block_size - 1) / limits.block_size;
}

/// int32 words of the largest plan on the device, results included.
int64_t max_index_words(const StepPlanLimits& limits) {
  const int64_t tokens = limits.max_num_tokens, seqs = limits.max_num_seqs;
  return 3 * tokens + (seqs + 1) + seqs + seqs * blocks_per_sequence(limits) + seqs + 2 * seqs;
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
  auto indices = backend.allocate(static_cast<size_t>(max_index_words(limits)) * sizeof(int32_t));
  if (!indices.ok()) return indices.status();
  const int64_t widest =
      std::max<int64_t>(config.shape.hidden_size, 2 * int64_t{config.layout.intermediate_per_rank});
  absl::Status reserved =
      backend.reserve_workspace(limits.max_num_tokens, limits.max_num_seqs, widest,
                                int64_t{config.layout.vocab_per_rank} * config.layout.tp_size);
  if (!reserved.ok()) return reserved;
  return std::unique_ptr<ModelRunner>(new ModelRunner(config, backend, group, model, cache, phases, progress,
                                                      Workspace(*std::move(arena)), *std::move(indices)));
}

ModelRunner::ModelRunner(const RunnerConfig& config, Backend& backend, ProcessGroup& group,
                         const CausalLm& model, KvCache& cache, StepPhases& phases, StepProgress& progress,
                         Workspace workspace, Buffer index_memory)
    : config_(config),
      backend_(backend),
      group_(group),
      model_(model),
      cache_(cache),
      phases_(phases),
      progress_(progress),
      workspace_(std::move(workspace)),
      index_memory_(std::move(index_memory)),
      last_tokens_(config.limits.max_num_seqs, 0) {
  workspace_bytes_ = workspace_.capacity_bytes();
  staging_.reserve(max_index_words(config.limits));
  sampled_ids_.reserve(config.limits.max_num_seqs);
  logprobs_.reserve(config.limits.max_num_seqs);
}

void ModelRunner::run(const StepPlan& plan) {
  workspace_.release(0);
  RaggedBatch batch;
  Tensor sampled_rows;
  phases_.enter(Phase::upload);
  const Tensor ids = upload(plan, batch, sampled_rows);
  phases_.enter(Phase::compute);
  ForwardContext context{backend_, group_, cache_, workspace_, batch, phases_, progress_};
  const Tensor hidden = workspace_.take(plan.num_tokens(), config_.shape.hidden_size);
  model_.forward(context, ids, hidden);
  sampled_ids_.resize(plan.num_sampled());
  logprobs_.resize(plan.num_sampled());
  if (plan.num_sampled() == 0) return;
  const Tensor rows = workspace_.take(plan.num_sampled(), config_.shape.hidden_size);
  backend_.gather_rows(hidden, sampled_rows, rows);
  const Tensor local_logits = workspace_.take(plan.num_sampled(), config_.layout.vocab_per_rank);
  model_.logits(context, rows, local_logits);
  sample(plan, local_logits);
}

// One contiguous copy: tokens | positions | slots | cu_query_lens | context_lens | block_tables | sampled
// rows.
Tensor ModelRunner::upload(const StepPlan& plan, RaggedBatch& batch, Tensor& sampled_rows) {
  const int64_t num_tokens = plan.num_tokens(), num_seqs = plan.num_seqs(), num_sampled = plan.num_sampled();
  const int32_t block_size = config_.limits.block_size;
  const int64_t max_blocks = *std::max_element(plan.num_blocks.begin(), plan.num_blocks.end());
  staging_.resize(3 * num_tokens + 2 * num_seqs + 1 + num_seqs * max_blocks + num_sampled);
  int32_t* tokens = staging_.data();
  int32_t* positions = tokens + num_tokens;
  int32_t* slots = positions + num_tokens;
  int32_t* cu_query_lens = slots + num_tokens;
  int32_t* context_lens = cu_query_lens + num_seqs + 1;
  int32_t* tables = context_lens + num_seqs;
  int32_t* rows = tables + num_seqs * max_blocks;
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
  sampled_rows = on_device(rows, 1, num_sampled);
  return on_device(tokens, 1, num_tokens);
}

void ModelRunner::sample(const StepPlan& plan, const Tensor& local_logits) {
  const int64_t num_sampled = plan.num_sampled();
  // Results follow the largest plan in the index memory.
  int32_t* results = static_cast<int32_t*>(index_memory_.data()) + max_index_words(config_.limits) -
                     2 * int64_t{config_.limits.max_num_seqs};
  const Tensor ids(results, DType::i32, 1, num_sampled);
  const Tensor logprobs(results + config_.limits.max_num_seqs, DType::f32, 1, num_sampled);
  whole_logits_ = local_logits;
  if (group_.size() > 1) {
    PhaseScope phase(phases_, Phase::collective);
    progress_.collectives.fetch_add(1, std::memory_order_relaxed);
    if (group_.rank() == 0) whole_logits_ = workspace_.take(num_sampled, local_logits.cols * group_.size());
    group_.gather_cols(local_logits, whole_logits_);
  }
  phases_.enter(Phase::sample);
  if (group_.rank() == 0) {
    backend_.sample(whole_logits_, config_.shape.vocab_size, plan.sampling.data(), ids, logprobs);
  }
  if (group_.size() > 1) {
    PhaseScope phase(phases_, Phase::collective);
    progress_.collectives.fetch_add(1, std::memory_order_relaxed);
    group_.broadcast(ids);
  }
  backend_.copy_to_host(sampled_ids_.data(), ids.data, ids.bytes());
  if (group_.rank() == 0) backend_.copy_to_host(logprobs_.data(), logprobs.data, logprobs.bytes());
  backend_.synchronize();
  for (int64_t s = 0, row = 0; s < plan.num_seqs(); ++s) {
    if (plan.sample[s] == 0) continue;
    if (plan.slots[s] >= 0)
      last_tokens_[plan.slots[s]] = std::max(sampled_ids_[row], 0);  // -1: that request ends
    ++row;
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
