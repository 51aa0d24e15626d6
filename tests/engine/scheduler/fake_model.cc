#include "tests/engine/scheduler/fake_model.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace trireme {
namespace {

uint64_t mix(uint64_t a, uint64_t b) {
  uint64_t x = (a + 0x9e3779b97f4a7c15u) * 0xbf58476d1ce4e5b9u + b * 0x94d049bb133111ebu;
  x = (x ^ (x >> 29)) * 0xbf58476d1ce4e5b9u;
  return x ^ (x >> 32);
}

int32_t sample(const FakeModelConfig& model, uint64_t history, const SamplingRow& row,
               const int32_t* banned) {
  if (model.nan_every != 0 && mix(history, 1) % model.nan_every == 0) return -1;
  const uint64_t drawn = mix(history, mix(mix(row.seed, row.sample_index), row.output_index));
  int32_t id = static_cast<int32_t>(drawn % model.vocab_size);
  while (std::find(banned, banned + row.num_banned, id) != banned + row.num_banned)
    id = (id + 1) % model.vocab_size;
  return id;
}

float fake_logprob(uint64_t history, int32_t target) {
  return -static_cast<float>(mix(history, target) % 1024) / 64;
}

int32_t fake_top(const FakeModelConfig& model, uint64_t history, int32_t place) {
  return static_cast<int32_t>(mix(history, 1000 + place) % model.vocab_size);
}

}  // namespace

ReferenceRun run_alone(const FakeModelConfig& model, const Request& request) {
  uint64_t history = 0;
  ReferenceRun run;
  run.prompt_logprobs.num_top = std::min(request.output.num_prompt_logprobs, model.vocab_size);
  for (size_t i = 0; i < request.prompt.size(); ++i) {
    history = mix(history, request.prompt[i]);
    if (request.output.num_prompt_logprobs < 0 || i + 1 == request.prompt.size()) continue;
    run.prompt_logprobs.logprobs.push_back(fake_logprob(history, request.prompt[i + 1]));
    for (int32_t place = 0; place < run.prompt_logprobs.num_top; ++place)
      run.prompt_logprobs.top.push_back({fake_top(model, history, place), -static_cast<float>(place)});
  }
  const std::vector<int32_t>& stops = request.stopping.stop_token_ids;
  while (run.finish == FinishReason::none) {
    SamplingRow row;
    row.seed = request.sampling.seed;
    row.sample_index = request.sampling.sample_index;
    row.output_index = static_cast<uint32_t>(run.tokens.size());
    const bool bans = static_cast<int32_t>(run.tokens.size()) < request.stopping.min_tokens;
    row.num_banned = bans ? static_cast<int32_t>(stops.size()) : 0;
    const int32_t id = sample(model, history, row, stops.data());
    if (id < 0) {
      run.finish = FinishReason::numerical_error;
      break;
    }
    run.tokens.push_back(id);
    history = mix(history, id);
    const int32_t num_tokens = static_cast<int32_t>(run.tokens.size());
    if (num_tokens == request.stopping.max_tokens) run.finish = FinishReason::length;
    if (num_tokens >= request.stopping.min_tokens && std::count(stops.begin(), stops.end(), id) > 0)
      run.finish = FinishReason::stop;
  }
  return run;
}

FakeModel::FakeModel(const FakeModelConfig& model, const SchedulerConfig& scheduler)
    : model_(model),
      scheduler_(scheduler),
      cache_(static_cast<size_t>(scheduler.num_blocks) * scheduler.block_size),
      last_tokens_(scheduler.max_num_seqs, -1),
      counted_(scheduler.max_num_seqs) {}

FakeModel::Entry& FakeModel::entry(const Row& row, int32_t position) {
  const int32_t block = row.table[position / scheduler_.block_size];
  return cache_[static_cast<size_t>(block) * scheduler_.block_size + position % scheduler_.block_size];
}

absl::Status FakeModel::store(const Row& row, uint64_t step) {
  for (int32_t i = 0; i < row.query_len; ++i) {
    int32_t id = row.token_ids[i];
    if (id == kLastToken) id = last_tokens_[row.slot];
    if (id < 0) return absl::InternalError(absl::StrCat("slot ", row.slot, " keeps no token"));
    const int32_t position = row.context_len - row.query_len + i;
    Entry& e = entry(row, position);
    if (e.written_by == step) return absl::InternalError("two tokens of one step were stored in one place");
    e = {id, position, 0, step};
  }
  return absl::OkStatus();
}

// Twice per row: first every row fills in the history of its own tokens, then every row checks all it reads,
// since a row may read what a later row of the same step stores.
absl::Status FakeModel::attend(const Row& row, bool check_history) {
  uint64_t history = 0;
  for (int32_t position = 0; position < row.context_len; ++position) {
    Entry& e = entry(row, position);
    if (e.position != position)
      return absl::InternalError(absl::StrCat("slot ", row.slot, ", position ", position,
                                              ": read a token of position ", e.position));
    history = mix(history, e.token_id);
    if (!check_history && position >= row.context_len - row.query_len) e.history = history;
    if (check_history && e.history != history)
      return absl::InternalError(
          absl::StrCat("slot ", row.slot, ", position ", position, ": read K and V of another history"));
  }
  return absl::OkStatus();
}

absl::Status FakeModel::count(const Row& row, const SamplingRow& sampling, const int32_t* history) {
  std::vector<int32_t>& counted = counted_[row.slot];
  const int32_t num_history = sampling.num_history_prompt + sampling.num_history_output;
  if (num_history > 0) counted.assign(history, history + num_history);
  bool same = static_cast<int32_t>(counted.size()) == row.context_len;
  for (int32_t position = 0; same && position < row.context_len; ++position)
    same = counted[position] == entry(row, position).token_id;
  if (!same) return absl::InternalError(absl::StrCat("slot ", row.slot, ": penalties of another history"));
  if (num_history > 0 && sampling.num_history_output != static_cast<int32_t>(sampling.output_index))
    return absl::InternalError(absl::StrCat("slot ", row.slot, ": prompt tokens counted as outputs"));
  return absl::OkStatus();
}

absl::Status FakeModel::give_prompt_logprobs(const StepPlan& plan, const std::vector<Row>& rows) {
  step_logprobs_ = {};
  for (size_t i = 0; i < plan.logprob_tokens.size(); ++i) {
    const int32_t* token = plan.token_ids.data() + plan.logprob_tokens[i];
    const auto row = std::find_if(rows.begin(), rows.end(), [&](const Row& r) {
      return token >= r.token_ids && token < r.token_ids + r.query_len;
    });
    const int32_t offset = static_cast<int32_t>(token - row->token_ids);
    const uint64_t history = entry(*row, row->context_len - row->query_len + offset).history;
    if (offset + 1 < row->query_len && token[1] != plan.logprob_targets[i])
      return absl::InternalError("a prompt logprob of another token than the next");
    step_logprobs_.prompt_logprobs.push_back(fake_logprob(history, plan.logprob_targets[i]));
    for (int32_t place = 0; place < kMaxTopLogprobs; ++place) {
      step_logprobs_.prompt_top_ids.push_back(fake_top(model_, history, place));
      step_logprobs_.prompt_top_logprobs.push_back(-static_cast<float>(place));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int32_t>> FakeModel::run(const StepPlan& sent) {
  const SchedulerConfig& s = scheduler_;
  const StepPlanLimits limits{s.max_num_seqs, s.max_step_tokens, s.max_context_len,
                              s.block_size,   s.num_blocks,      s.vocab_size};
  StepPlan plan;
  pack(sent, words_);
  if (absl::Status status = unpack(words_.data(), words_.size(), limits, plan); !status.ok()) return status;
  if (plan.step != ++last_step_) return absl::InternalError("steps are not numbered one by one");

  std::vector<Row> rows;
  const int32_t* table = plan.block_tables.data();
  const int32_t* ids = plan.token_ids.data();
  for (int32_t i = 0; i < plan.num_seqs(); ++i) {
    rows.push_back({table, plan.slots[i], plan.query_lens[i], plan.context_lens[i], ids});
    table += plan.num_blocks[i];
    ids += plan.query_lens[i];
  }
  absl::Status status;
  for (const Row& row : rows) status.Update(store(row, plan.step));
  for (const Row& row : rows) status.Update(attend(row, /*check_history=*/false));
  for (const Row& row : rows) status.Update(attend(row, /*check_history=*/true));
  if (status.ok()) status = give_prompt_logprobs(plan, rows);
  if (!status.ok()) return status;

  std::vector<int32_t> sampled;
  const int32_t *banned = plan.banned_ids.data(), *counted = plan.history_ids.data();
  for (int32_t i = 0; i < plan.num_seqs(); ++i) {
    if (plan.sample[i] == 0) continue;
    const SamplingRow& row = plan.sampling[sampled.size()];
    const uint64_t history = entry(rows[i], rows[i].context_len - 1).history;
    if (row.has_penalties()) status.Update(count(rows[i], row, counted));
    sampled.push_back(sample(model_, history, row, banned));
    // A device keeps some id in any case; the plan that reads it is on its way already.
    last_tokens_[plan.slots[i]] = std::max(sampled.back(), 0);
    if (row.has_penalties()) counted_[plan.slots[i]].push_back(last_tokens_[plan.slots[i]]);
    banned += row.num_banned;
    counted += row.num_history_prompt + row.num_history_output;
  }
  if (!status.ok()) return status;
  return sampled;
}

}  // namespace trireme
