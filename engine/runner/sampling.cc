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
  const Tensor local = workspace_.take(num_rows, config_.layout.vocab_per_rank);
  model_.logits(context, rows, local);
  if (group_.size() == 1) return local;
  PhaseScope phase(phases_, Phase::collective);
  progress_.collectives.fetch_add(1, std::memory_order_relaxed);
  Tensor whole = local;
  if (group_.rank() == 0) whole = workspace_.take(num_rows, local.cols * group_.size());
  group_.gather_cols(local, whole);
  return whole;
}

// As many rows at a time as the workspace has room for.
void ModelRunner::compute_prompt_logprobs(ForwardContext& context, const StepPlan& plan, const Tensor& hidden,
                                          const UploadedPlan& uploaded) {
  const int64_t count = plan.num_prompt_logprobs(), most = config_.limits.max_num_seqs;
  StepLogprobs& step = step_->step_logprobs;
  step.prompt_logprobs.resize(count);
  step.prompt_top_ids.resize(count * kMaxTopLogprobs);
  step.prompt_top_logprobs.resize(count * kMaxTopLogprobs);
  for (int64_t begin = 0; begin < count; begin += most) {
    const int64_t num_rows = std::min(most, count - begin);
    const WorkspaceScope scope(workspace_);
    const Tensor logits = whole_logits(context, hidden, uploaded.logprob_rows.slice_cols(begin, num_rows));
    progress_.move();
    if (group_.rank() != 0) continue;
    PhaseScope phase(phases_, Phase::sample);
    const Results of_chunk = results(num_rows);
    backend_.logprobs(logits, config_.shape.vocab_size, plan.logprob_tops.data() + begin,
                      uploaded.logprob_targets.slice_cols(begin, num_rows), of_chunk.target_logprobs,
                      of_chunk.top_ids, of_chunk.top_logprobs);
    const auto copy = [&](auto& host, int64_t at, const Tensor& from) {
      backend_.copy_to_host(host.data() + at, from.data, from.bytes());
    };
    copy(step.prompt_logprobs, begin, of_chunk.target_logprobs);
    copy(step.prompt_top_ids, begin * kMaxTopLogprobs, of_chunk.top_ids);
    copy(step.prompt_top_logprobs, begin * kMaxTopLogprobs, of_chunk.top_logprobs);
    backend_.synchronize();
  }
}

void ModelRunner::sample(const StepPlan& plan) {
  const Results all = results(plan.num_sampled());
  phases_.enter(Phase::sample);
  if (group_.rank() == 0) draw(plan, all);
  if (group_.size() > 1) {
    PhaseScope phase(phases_, Phase::collective);
    progress_.collectives.fetch_add(1, std::memory_order_relaxed);
    group_.broadcast(all.ids);
  }
  backend_.copy_to_host(step_->sampled_ids.data(), all.ids.data, all.ids.bytes());
  if (group_.rank() == 0)
    backend_.copy_to_host(step_->logprobs.data(), all.logprobs.data, all.logprobs.bytes());
  backend_.synchronize();
  for (int64_t s = 0, row = 0; s < plan.num_seqs(); ++s) {
    if (plan.sample[s] == 0) continue;
    if (plan.slots[s] >= 0)
      last_tokens_[plan.slots[s]] = std::max(step_->sampled_ids[row], 0);  // -1: that request ends
    ++row;
  }
}

void ModelRunner::draw(const StepPlan& plan, const Results& all) {
  const Tensor counts(token_counts_.data(), DType::i32, config_.limits.max_num_seqs,
                      config_.shape.vocab_size);
  const int32_t* history = plan.history_ids.data();
  counted_slots_.clear();
  bool counted = false;
  for (int64_t s = 0; s < plan.num_seqs(); ++s) {
    if (plan.sample[s] == 0) continue;
    const SamplingRow& row = plan.sampling[counted_slots_.size()];
    const bool counts_here = row.has_penalties() && plan.slots[s] >= 0;
    counted_slots_.push_back(counts_here ? plan.slots[s] : -1);
    counted = counted || counts_here;
    const int64_t num_prompt = row.num_history_prompt, num_output = row.num_history_output;
    if (counts_here && num_prompt + num_output > 0)
      backend_.set_token_counts(counts, plan.slots[s], history, num_prompt, history + num_prompt, num_output);
    history += num_prompt + num_output;
  }
  const SamplingLists lists{nullptr,
                            nullptr,
                            plan.bias_ids.data(),
                            plan.biases.data(),
                            plan.banned_ids.data(),
                            counts,
                            counted_slots_.data()};
  backend_.sample(whole_logits_, config_.shape.vocab_size, plan.sampling.data(), all.ids, all.logprobs,
                  lists);
  if (counted) backend_.count_tokens(counts, counted_slots_.data(), all.ids);
  compute_top_logprobs(plan, all);
}

void ModelRunner::compute_top_logprobs(const StepPlan& plan, const Results& all) {
  num_top_.clear();
  int32_t most = 0;
  for (const SamplingRow& row : plan.sampling) {
    num_top_.push_back(row.num_top_logprobs);
    most = std::max(most, row.num_top_logprobs);
  }
  if (most == 0) return;
  backend_.logprobs(whole_logits_, config_.shape.vocab_size, num_top_.data(), all.ids, all.target_logprobs,
                    all.top_ids, all.top_logprobs);
  StepLogprobs& step = step_->step_logprobs;
  step.top_ids.resize(all.top_ids.size());
  step.top_logprobs.resize(all.top_logprobs.size());
  backend_.copy_to_host(step.top_ids.data(), all.top_ids.data, all.top_ids.bytes());
  backend_.copy_to_host(step.top_logprobs.data(), all.top_logprobs.data, all.top_logprobs.bytes());
}

}  // namespace trireme
