// The last part of a step: from hidden states to tokens and log probabilities.

#include <algorithm>

#include "engine/runner/model_runner.h"

namespace trireme {

/// Logits of some rows of `hidden`: on rank 0 those of the whole vocabulary, elsewhere this rank's part. At
/// most max_num_seqs rows; taken from the workspace.
Tensor ModelRunner::whole_logits(ForwardContext& context, const Tensor& hidden, const Tensor& row_ids) {
  const int64_t num_rows = row_ids.cols;
  const Tensor rows = workspace_.take(num_rows, config_.shape.hidden_size);
  backend_.gather_rows(hidden, row_ids, rows);
  const Tensor local = workspace_.take(num_rows, config_.layout.vocab_per_rank, DType::f32);
  model_.logits(context, rows, local);
  if (group_.size() == 1) return local;
  const CollectiveScope collective(phases_, progress_, CollectiveKind::gather);
  Tensor whole = local;
  if (group_.rank() == 0) whole = workspace_.take(num_rows, local.cols * group_.size(), DType::f32);
  group_.gather_cols(local, whole);
  return whole;
}

// As many rows at a time as the workspace has room for.
void ModelRunner::compute_prompt_logprobs(ForwardContext& context, const Tensor& hidden,
                                          const StepTensors& step, const StepOutputs& host) {
  const int64_t count = step.logprob_rows.cols, most = config_.limits.max_num_seqs;
  for (int64_t begin = 0; begin < count; begin += most) {
    const int64_t num_rows = std::min(most, count - begin);
    const WorkspaceScope scope(workspace_);
    const Tensor logits = whole_logits(context, hidden, step.logprob_rows.slice_cols(begin, num_rows));
    progress_.move();
    if (group_.rank() != 0) continue;
    PhaseScope phase(phases_, Phase::sample);
    const StepOutputs::Rows rows = outputs_.rows(num_rows);
    backend_.logprobs(logits, config_.shape.vocab_size,
                      step.logprob_tops.slice_cols(begin, num_rows).as<int32_t>(),
                      step.logprob_targets.slice_cols(begin, num_rows), rows.target_logprobs, rows.top_ids,
                      rows.top_logprobs);
    const StepOutputs::PromptRows to = host.prompt_rows(begin, num_rows);
    backend_.copy_to_host(to.logprobs.data, rows.target_logprobs.data, to.logprobs.bytes());
    backend_.copy_to_host(to.top_ids.data, rows.top_ids.data, to.top_ids.bytes());
    backend_.copy_to_host(to.top_logprobs.data, rows.top_logprobs.data, to.top_logprobs.bytes());
  }
}

/// Draws from whole_logits_. The ids reach every rank, and every rank keeps them.
void ModelRunner::sample(const StepTensors& step, bool count_tokens) {
  const StepOutputs::Rows rows = outputs_.rows(step.sampled_rows.cols);
  phases_.enter(Phase::sample);
  if (group_.rank() == 0) {
    SamplingLists lists = step.lists;
    lists.token_counts = token_counts();
    backend_.sample(whole_logits_, config_.shape.vocab_size, step.sampling, rows.ids, rows.logprobs, lists);
    if (count_tokens) backend_.count_tokens(token_counts(), lists.slots, rows.ids);
  }
  if (group_.size() > 1) {
    const CollectiveScope collective(phases_, progress_, CollectiveKind::broadcast);
    group_.broadcast(rows.ids);
  }
  backend_.keep_last_tokens(rows.ids, step.kept_slots, last_tokens_);
}

void ModelRunner::compute_top_logprobs(const StepTensors& step, const StepOutputs& host) {
  const StepOutputs::Rows rows = outputs_.rows(step.sampled_rows.cols);
  backend_.logprobs(whole_logits_, config_.shape.vocab_size, step.num_top.as<int32_t>(), rows.ids,
                    rows.target_logprobs, rows.top_ids, rows.top_logprobs);
  const StepOutputs::Rows to = host.rows(step.sampled_rows.cols);
  backend_.copy_to_host(to.top_ids.data, rows.top_ids.data, to.top_ids.bytes());
  backend_.copy_to_host(to.top_logprobs.data, rows.top_logprobs.data, to.top_logprobs.bytes());
}

}  // namespace trireme
