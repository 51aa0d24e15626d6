#include "engine/scheduler/scheduler.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/scheduler/scheduler_impl.h"
#include "kernels/check.h"

namespace trireme {
namespace {

BlockManagerConfig block_config(const SchedulerConfig& config) {
  BlockManagerConfig blocks;
  blocks.num_blocks = config.num_blocks;
  blocks.block_size = config.block_size;
  blocks.num_states = config.max_num_seqs;
  blocks.enable_prefix_cache = config.enable_prefix_cache;
  return blocks;
}

absl::Status refuse(const char* what, int64_t got, const std::string& wanted) {
  return absl::InvalidArgumentError(absl::StrCat(what, ": got ", got, ", wanted ", wanted));
}

/// Those of the step's sampled row `index`.
void add_top_logprobs(const StepLogprobs* step, size_t index, int32_t num_top, TokenOutput& output) {
  if (num_top == 0 || !output.has_token) return;
  const size_t begin = index * kMaxTopLogprobs;
  auto more = std::make_shared<OutputLogprobs>();
  more->top = top_of(step->top_ids.data() + begin, step->top_logprobs.data() + begin, num_top);
  more->prompt = output.prompt_logprobs();
  output.more = std::move(more);
}

}  // namespace

Scheduler::Impl::Impl(const SchedulerConfig& config_in) : config(config_in), blocks(block_config(config_in)) {
  CHECK_GE(config.max_num_seqs, 1);
  CHECK_GE(config.max_step_tokens, 1);
  CHECK_GE(config.max_context_len, 1);
  CHECK_GE(config.vocab_size, 1);
  CHECK_GE(config.ageing_steps, 1);
  running.reserve(config.max_num_seqs);
}

absl::Status Scheduler::Impl::check_ids(const char* what, const std::vector<int32_t>& ids) const {
  for (int32_t id : ids) {
    if (id < 0 || id >= config.vocab_size)
      return refuse(what, id, absl::StrCat("in [0, ", config.vocab_size, ")"));
  }
  return absl::OkStatus();
}

absl::Status Scheduler::Impl::check_request(const Request& request) const {
  if (request.prompt.empty()) return refuse("prompt tokens", 0, "at least 1");
  if (absl::Status status = check_ids("prompt token id", request.prompt); !status.ok()) return status;
  if (absl::Status status = check_ids("resumed output id", request.resumed_outputs); !status.ok())
    return status;
  const StoppingParams& stopping = request.stopping;
  if (stopping.max_tokens < 1) return refuse("max_tokens", stopping.max_tokens, "at least 1");
  const int64_t num_resumed = static_cast<int64_t>(request.resumed_outputs.size());
  if (num_resumed >= stopping.max_tokens)
    return refuse("resumed outputs", num_resumed,
                  absl::StrCat("fewer than the max_tokens of ", stopping.max_tokens));
  const int64_t num_tokens = static_cast<int64_t>(request.prompt.size()) + stopping.max_tokens;
  if (num_tokens > config.max_context_len) {
    return absl::InvalidArgumentError(
        absl::StrCat("prompt and max_tokens: got ", request.prompt.size(), " + ", stopping.max_tokens, " = ",
                     num_tokens, " tokens, wanted at most the context of ", config.max_context_len));
  }
  // The last token is sampled, but never attended over.
  const int32_t num_blocks = blocks.blocks_for(num_tokens - 1);
  if (num_blocks > config.num_blocks) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "KV cache: prompt and max_tokens of ", request.prompt.size(), " + ", stopping.max_tokens, " need ",
        num_blocks, " blocks of ", config.block_size, " tokens, the whole cache has ", config.num_blocks));
  }
  return check_sampling(request, config.vocab_size);
}

void Scheduler::Impl::add(Request request) {
  auto sequence = std::make_unique<Sequence>();
  sequence->handle = request.handle;
  sequence->order = {static_cast<int64_t>(request.priority) * config.ageing_steps + stats.steps,
                     num_arrivals++};
  sequence->sampling = request.sampling;
  sequence->stopping = std::move(request.stopping);
  // Handles are never used twice, so without a prefix cache no two groups share a salt.
  sequence->cache_salt = config.enable_prefix_cache ? request.cache_salt : request.prompt_group;
  sequence->shares_blocks = config.enable_prefix_cache || request.prompt_group != 0;
  std::vector<int32_t>& stops = sequence->stopping.stop_token_ids;
  std::sort(stops.begin(), stops.end());
  stops.erase(std::unique(stops.begin(), stops.end()), stops.end());
  sequence->output = request.output;
  if (request.output.num_prompt_logprobs >= 0) {
    sequence->prompt_logprobs = std::make_shared<PromptLogprobs>();
    sequence->prompt_logprobs->num_top = std::min(request.output.num_prompt_logprobs, config.vocab_size);
  }
  sequence->num_prompt_tokens = static_cast<int32_t>(request.prompt.size());
  sequence->tokens = std::move(request.prompt);
  // Taken now, so that no step allocates.
  sequence->tokens.reserve(sequence->tokens.size() + sequence->stopping.max_tokens);
  // Waiting with outputs, the sequence is like one that was preempted.
  sequence->tokens.insert(sequence->tokens.end(), request.resumed_outputs.begin(),
                          request.resumed_outputs.end());
  sequence->blocks.reserve(blocks.blocks_for(sequence->num_prompt_tokens + sequence->stopping.max_tokens));
  stats.prompt_tokens += sequence->num_prompt_tokens;
  waiting.emplace(sequence->order, sequence.get());
  sequences.emplace(request.handle, std::move(sequence));
}

Sequence* Scheduler::Impl::find(RequestHandle handle) {
  const auto found = sequences.find(handle);
  return found == sequences.end() ? nullptr : found->second.get();
}

void Scheduler::Impl::finish(const StepPlan& plan, const int32_t* token_ids, const float* logprobs,
                             const StepLogprobs* more, std::vector<TokenOutput>& outputs) {
  TRIREME_CHECK(!planned.empty());
  PlannedStep step = std::move(planned.front());
  planned.erase(planned.begin());
  CHECK_EQ(plan.step, step.step);
  int32_t prompt_logprob = 0;
  for (size_t row = 0, sampled = 0; row < step.handles.size(); ++row) {
    Sequence* sequence = find(step.handles[row]);
    const size_t index = sampled;
    if (step.sample[row] != 0) ++sampled;
    const int32_t first = prompt_logprob, count = step.num_prompt_logprobs[row];
    prompt_logprob += count;
    if (sequence == nullptr) continue;  // ended while the plan ran
    if (count > 0 && !take_prompt_logprobs(*more, first, count, *sequence->prompt_logprobs)) {
      outputs.push_back(end_without_number(*sequence));
    } else if (step.sample[row] != 0) {
      outputs.push_back(accept(*sequence, token_ids[index], logprobs == nullptr ? 0 : logprobs[index]));
      add_top_logprobs(more, index, plan.sampling[index].num_top_logprobs, outputs.back());
    } else if (sequence->running()) {
      publish(*sequence, /*replace=*/true);
    }
  }
  spare.push_back(std::move(step));
}

// Admission saw to it that max_tokens ends a request before the context does.
TokenOutput Scheduler::Impl::accept(Sequence& sequence, int32_t token_id, float logprob) {
  --sequence.num_pending;
  if (token_id < 0) return end_without_number(sequence);
  TokenOutput output = output_of(sequence);
  CHECK_LT(token_id, config.vocab_size);
  sequence.tokens.push_back(token_id);
  output.token_id = token_id;
  output.logprob = logprob;
  output.finish = stop_reason(sequence.stopping, sequence.num_known() - sequence.num_prompt_tokens, token_id);
  ++stats.output_tokens;
  if (sequence.running()) publish(sequence, /*replace=*/true);
  if (output.finish != FinishReason::none) end(sequence);
  return output;
}

// What made the logits NaN may be in the sequence's blocks: nobody else shall read them.
TokenOutput Scheduler::Impl::end_without_number(Sequence& sequence) {
  TokenOutput output = output_of(sequence);
  blocks.forget(sequence.blocks);
  output.has_token = false;
  output.finish = FinishReason::numerical_error;
  end(sequence);
  return output;
}

TokenOutput Scheduler::Impl::output_of(Sequence& sequence) {
  TokenOutput output;
  output.handle = sequence.handle;
  output.sample_index = sequence.sampling.sample_index;
  if (!std::exchange(sequence.reported, true)) {
    output.num_cached_tokens = std::max(sequence.num_cached_tokens, 0);
    output.first_step = sequence.first_step;
    const auto& logprobs = sequence.prompt_logprobs;
    const size_t wanted = static_cast<size_t>(sequence.num_wanted_logprobs());
    if (logprobs != nullptr && logprobs->logprobs.size() == wanted)
      output.more = std::make_shared<OutputLogprobs>(OutputLogprobs{{}, logprobs});
  }
  return output;
}

void Scheduler::Impl::end(Sequence& sequence) {
  if (sequence.running())
    stop_running(sequence);
  else
    waiting.erase(sequence.order);
  ++stats.finished;
  sequences.erase(sequence.handle);
}

absl::Status Scheduler::Impl::check_integrity() const {
  std::vector<const std::vector<int32_t>*> tables;
  std::vector<int32_t> slots;
  for (const auto& [handle, sequence] : sequences) {
    const bool queued = waiting.count(sequence->order) == 1;
    const bool runs = std::find(running.begin(), running.end(), sequence.get()) != running.end();
    if (queued == runs || runs != sequence->running())
      return absl::InternalError(absl::StrCat("scheduler: request ", handle, " must either wait or run"));
    if (!runs && !sequence->blocks.empty())
      return absl::InternalError(absl::StrCat("scheduler: waiting request ", handle, " holds blocks"));
    if (static_cast<int32_t>(sequence->blocks.size()) < blocks.blocks_for(sequence->num_computed))
      return absl::InternalError(absl::StrCat("scheduler: request ", handle, " has ", sequence->num_computed,
                                              " tokens in ", sequence->blocks.size(), " blocks"));
    tables.push_back(&sequence->blocks);
    if (runs) slots.push_back(sequence->slot);
  }
  if (waiting.size() + running.size() != sequences.size())
    return absl::InternalError(absl::StrCat("scheduler: ", waiting.size(), " waiting + ", running.size(),
                                            " running requests, wanted ", sequences.size()));
  return blocks.check_integrity(tables, slots);
}

Scheduler::Scheduler(const SchedulerConfig& config) : impl_(std::make_unique<Impl>(config)) {}
Scheduler::~Scheduler() = default;

absl::Status Scheduler::add(Request request) {
  if (impl_->find(request.handle) != nullptr)
    return absl::AlreadyExistsError(absl::StrCat("request handle ", request.handle, " is in use"));
  if (absl::Status status = impl_->check_request(request); !status.ok()) return status;
  impl_->add(std::move(request));
  return absl::OkStatus();
}

bool Scheduler::cancel(RequestHandle handle) {
  Sequence* sequence = impl_->find(handle);
  if (sequence == nullptr) return false;
  TokenOutput output = impl_->output_of(*sequence);
  output.has_token = false;
  output.finish = FinishReason::cancelled;
  impl_->ended.push_back(output);
  impl_->end(*sequence);
  return true;
}

bool Scheduler::has_work() const { return !impl_->sequences.empty(); }

bool Scheduler::schedule(StepPlan& plan) { return impl_->schedule(plan); }

void Scheduler::finish_step(const StepPlan& plan, const int32_t* token_ids, const float* logprobs,
                            std::vector<TokenOutput>& outputs, const StepLogprobs* more) {
  take_finished(outputs);
  impl_->finish(plan, token_ids, logprobs, more, outputs);
}

void Scheduler::take_finished(std::vector<TokenOutput>& outputs) {
  outputs.insert(outputs.end(), impl_->ended.begin(), impl_->ended.end());
  impl_->ended.clear();
}

SchedulerStats Scheduler::stats() const {
  SchedulerStats stats = impl_->stats;
  stats.running = static_cast<int32_t>(impl_->running.size());
  stats.waiting = static_cast<int32_t>(impl_->waiting.size());
  for (const auto& [order, sequence] : impl_->waiting)
    stats.waiting_prompt_tokens += sequence->num_prompt_tokens;
  if (!impl_->lacks_blocks)
    stats.free_slots =
        std::min(impl_->blocks.num_free_states(), impl_->config.max_step_tokens - stats.running);
  stats.blocks_total = impl_->config.num_blocks;
  stats.blocks_free = impl_->blocks.num_free();
  stats.blocks_cached = impl_->blocks.num_cached();
  int64_t num_owned = 0;
  for (const Sequence* sequence : impl_->running) num_owned += static_cast<int64_t>(sequence->blocks.size());
  stats.blocks_of_finished = static_cast<int32_t>(impl_->blocks.num_references() - num_owned);
  return stats;
}

void Scheduler::list_waiting(std::vector<RequestHandle>& handles) const {
  for (const auto& [order, sequence] : impl_->waiting) handles.push_back(sequence->handle);
}

absl::Status Scheduler::check_integrity() const { return impl_->check_integrity(); }

}  // namespace trireme
