// One plan: decodes, then chunks of prompts already begun, then new ones, until the token budget is used.

#include <algorithm>

#include "engine/scheduler/scheduler_impl.h"
#include "kernels/check.h"

namespace trireme {
namespace {

void clear(StepPlan& plan) {
  plan.kind = StepPlan::Kind::kRun;
  plan.step = 0;
  plan.after_idle = false;
  plan.slots.clear();
  plan.query_lens.clear();
  plan.context_lens.clear();
  plan.num_blocks.clear();
  plan.block_tables.clear();
  plan.token_ids.clear();
  plan.sample.clear();
  plan.sampling.clear();
  plan.bias_ids.clear();
  plan.biases.clear();
  plan.banned_ids.clear();
  plan.history_ids.clear();
  plan.logprob_tokens.clear();
  plan.logprob_targets.clear();
  plan.logprob_tops.clear();
}

}  // namespace

bool Scheduler::Impl::schedule(StepPlan& plan) {
  clear(plan);
  if (spare.empty()) spare.emplace_back();
  planned.push_back(std::move(spare.back()));
  spare.pop_back();
  planned.back().handles.clear();
  planned.back().sample.clear();
  planned.back().num_prompt_logprobs.clear();

  budget = config.max_step_tokens;
  schedule_decodes(plan);
  schedule_prefills(plan);
  admit(plan);

  if (plan.num_seqs() == 0) {
    spare.push_back(std::move(planned.back()));
    planned.pop_back();
    return false;
  }
  plan.step = static_cast<uint64_t>(++stats.steps);
  planned.back().step = plan.step;
  return true;
}

// A sequence joins only when all that run have left a token of the budget. So no more run than the budget has
// tokens: every decode finds one, and the first prefill too. Preemption takes from the end of `running` only:
// never a sequence that is in this plan already.
void Scheduler::Impl::schedule_decodes(StepPlan& plan) {
  for (size_t i = 0; i < running.size(); ++i) {
    Sequence& sequence = *running[i];
    if (sequence.can_decode() && make_room(i)) append_row(plan, sequence, 1);
  }
}

void Scheduler::Impl::schedule_prefills(StepPlan& plan) {
  for (Sequence* sequence : running) {
    if (budget == 0) return;
    if (sequence->in_prefill())
      append_row(plan, *sequence, std::min(budget, sequence->length() - sequence->num_computed));
  }
}

// The first in line is never passed by: a large prompt would wait forever behind small ones. A block to grow
// into is left for each sequence that runs, or the newcomer would soon be preempted.
void Scheduler::Impl::admit(StepPlan& plan) {
  lacks_blocks = false;
  while (budget > 0 && blocks.num_free_states() > 0 && !waiting.empty()) {
    Sequence& sequence = *waiting.begin()->second;
    if (sequence.num_pending > 0) return;  // preempted while its plan runs: its last token is not known yet
    // Prompt positions whose logits are still wanted must be computed, cached or not.
    const bool wants_logits = sequence.num_logprobs_planned < sequence.num_wanted_logprobs();
    const int32_t max_cached = wants_logits ? sequence.num_logprobs_planned : sequence.num_known();
    const std::optional<int32_t> num_cached =
        blocks.open_table(sequence.tokens.data(), sequence.num_known(), sequence.cache_salt,
                          static_cast<int32_t>(running.size()), sequence.blocks, max_cached);
    lacks_blocks = !num_cached;
    if (lacks_blocks) return;
    sequence.num_computed = *num_cached;
    sequence.num_published = *num_cached / config.block_size;
    if (sequence.num_cached_tokens < 0) {
      // With resumed outputs, some of those may be cached too.
      sequence.num_cached_tokens = std::min(*num_cached, sequence.num_prompt_tokens);
      stats.cached_prompt_tokens += sequence.num_cached_tokens;
    }
    if (sequence.first_step == 0) sequence.first_step = static_cast<uint64_t>(stats.steps) + 1;
    start_running(sequence);
    append_row(plan, sequence, std::min(budget, sequence.length() - sequence.num_computed));
  }
}

// A block for the next token of running[index], taken from the last in order if need be. False when that is
// running[index] itself, which then waits again.
bool Scheduler::Impl::make_room(size_t index) {
  Sequence& sequence = *running[index];
  if (static_cast<int32_t>(sequence.blocks.size()) == blocks.blocks_for(sequence.num_computed + 1))
    return true;
  while (blocks.num_free() == 0) {
    Sequence& victim = *running.back();
    preempt(victim);
    if (&victim == &sequence) return false;
  }
  sequence.blocks.push_back(blocks.allocate());
  return true;
}

void Scheduler::Impl::preempt(Sequence& sequence) {
  stop_running(sequence);
  waiting.emplace(sequence.order, &sequence);
  ++stats.preemptions;
}

void Scheduler::Impl::start_running(Sequence& sequence) {
  waiting.erase(sequence.order);
  sequence.slot = blocks.allocate_state();
  CHECK_GE(sequence.slot, 0);
  const auto place =
      std::upper_bound(running.begin(), running.end(), &sequence,
                       [](const Sequence* a, const Sequence* b) { return a->order < b->order; });
  running.insert(place, &sequence);
}

void Scheduler::Impl::stop_running(Sequence& sequence) {
  blocks.release_table(sequence.blocks);
  blocks.release_state(sequence.slot);
  sequence.slot = -1;
  sequence.slot_has_token = false;
  sequence.num_computed = 0;
  running.erase(std::find(running.begin(), running.end(), &sequence));
}

void Scheduler::Impl::append_row(StepPlan& plan, Sequence& sequence, int32_t query_len) {
  const int32_t context_len = sequence.num_computed + query_len;
  const int32_t num_blocks = blocks.blocks_for(context_len);
  const bool sample = context_len == sequence.length();
  CHECK_GE(budget, query_len);
  CHECK_GE(static_cast<int32_t>(sequence.blocks.size()), num_blocks);
  plan.slots.push_back(sequence.slot);
  plan.query_lens.push_back(query_len);
  plan.context_lens.push_back(context_len);
  plan.num_blocks.push_back(num_blocks);
  plan.block_tables.insert(plan.block_tables.end(), sequence.blocks.begin(),
                           sequence.blocks.begin() + num_blocks);
  if (sequence.slot_has_token)
    plan.token_ids.push_back(kLastToken);
  else
    plan.token_ids.insert(plan.token_ids.end(), sequence.tokens.begin() + sequence.num_computed,
                          sequence.tokens.begin() + context_len);
  plan.sample.push_back(sample ? 1 : 0);
  if (sample) append_sampling(sequence, plan);
  planned.back().num_prompt_logprobs.push_back(
      append_prompt_logprobs(sequence, sequence.num_computed, context_len, plan));
  planned.back().handles.push_back(sequence.handle);
  planned.back().sample.push_back(sample ? 1 : 0);

  budget -= query_len;
  sequence.num_computed = context_len;
  if (sample) {
    sequence.slot_has_token = true;
    ++sequence.num_pending;
  }
  publish(sequence, /*replace=*/false);
}

// Blocks are findable as soon as a plan writes them: a step stores K and V of all its tokens before any token
// attends, so even a later row of this very plan may read them. Replacing, however, would give a block away
// that this plan's rows name, so it waits until the plan is complete.
void Scheduler::Impl::publish(Sequence& sequence, bool replace) {
  if (!sequence.shares_blocks) return;
  const int32_t num_full = std::min(sequence.num_computed, sequence.num_known()) / config.block_size;
  while (sequence.num_published < num_full) {
    const int32_t index = sequence.num_published;
    const int32_t* token_ids = sequence.tokens.data() + static_cast<size_t>(index) * config.block_size;
    if (!blocks.publish(sequence.blocks, index, sequence.cache_salt, token_ids, replace)) return;
    ++sequence.num_published;
  }
}

}  // namespace trireme
