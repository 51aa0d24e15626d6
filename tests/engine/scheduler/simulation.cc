#include "tests/engine/scheduler/simulation.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace trireme {

Simulation::Simulation(const SchedulerConfig& config, const FakeModelConfig& model, int max_plans)
    : config_(config),
      model_config_(model),
      max_plans_(max_plans),
      scheduler_(config),
      model_(model, config) {}

absl::Status Simulation::add(Request request) {
  request.handle = ++last_handle_;
  if (absl::Status status = scheduler_.add(request); !status.ok()) return status;
  Record& record = records_[request.handle];
  record.tokens = request.resumed_outputs;
  record.request = std::move(request);
  return scheduler_.check_integrity();
}

absl::Status Simulation::cancel(RequestHandle handle) {
  const auto found = records_.find(handle);
  const bool live =
      found != records_.end() && found->second.finish == FinishReason::none && !found->second.cancelled;
  if (scheduler_.cancel(handle) != live)
    return absl::InternalError(absl::StrCat("cancel of request ", handle, " did not say ", live));
  if (live) found->second.cancelled = true;
  if (scheduler_.stats().blocks_of_finished != 0)
    return absl::InternalError(absl::StrCat("request ", handle, " was cancelled and still owns blocks"));
  decoding_.erase(handle);
  return scheduler_.check_integrity();
}

absl::Status Simulation::step() {
  bool scheduled = false;
  if (absl::Status status = schedule(&scheduled); !status.ok()) return status;
  if (static_cast<int>(in_flight_.size()) < max_plans_ && scheduled) return absl::OkStatus();
  if (!in_flight_.empty()) return finish();
  std::vector<TokenOutput> outputs;
  scheduler_.take_finished(outputs);
  return take(outputs);
}

absl::Status Simulation::schedule(bool* scheduled) {
  const int64_t num_preemptions = scheduler_.stats().preemptions;
  InFlight next;
  *scheduled = scheduler_.schedule(next.plan);
  if (absl::Status status = scheduler_.check_integrity(); !status.ok()) return status;
  if (!*scheduled) {
    if (scheduler_.has_work() && in_flight_.empty())
      return absl::InternalError("requests are left, but none can be scheduled");
    return absl::OkStatus();
  }
  absl::StatusOr<std::vector<int32_t>> token_ids = model_.run(next.plan);
  if (!token_ids.ok()) return token_ids.status();
  next.token_ids = *std::move(token_ids);
  next.logprobs = model_.step_logprobs();
  next.preempted = scheduler_.stats().preemptions != num_preemptions;
  last_plan_ = next.plan;
  in_flight_.push_back(std::move(next));
  return absl::OkStatus();
}

absl::Status Simulation::finish() {
  InFlight step = std::move(in_flight_.front());
  in_flight_.pop_front();
  std::vector<float> logprobs(step.token_ids.size(), -1.5f);
  std::vector<TokenOutput> outputs;
  scheduler_.finish_step(step.plan, step.token_ids.data(), logprobs.data(), outputs, &step.logprobs);
  if (absl::Status status = scheduler_.check_integrity(); !status.ok()) return status;
  if (absl::Status status = take(outputs); !status.ok()) return status;

  // Who decodes, decodes in every step, unless it was preempted.
  std::set<RequestHandle> sampled;
  for (const TokenOutput& output : outputs) {
    if (output.finish != FinishReason::cancelled) sampled.insert(output.handle);
  }
  if (max_plans_ == 1 && !step.preempted &&
      !std::includes(sampled.begin(), sampled.end(), decoding_.begin(), decoding_.end()))
    return absl::InternalError("a decoding sequence was left out of a step");
  decoding_.clear();
  for (RequestHandle handle : sampled) {
    if (records_[handle].finish == FinishReason::none) decoding_.insert(handle);
  }
  return absl::OkStatus();
}

absl::Status Simulation::take(const std::vector<TokenOutput>& outputs) {
  for (const TokenOutput& output : outputs) {
    const auto found = records_.find(output.handle);
    if (found == records_.end()) return absl::InternalError("an output of an unknown request");
    Record& record = found->second;
    if (record.finish != FinishReason::none) return absl::InternalError("an output after the last one");
    if (record.cancelled && output.has_token) return absl::InternalError("a token after the cancel");
    if (record.tokens.size() == record.request.resumed_outputs.size())
      record.num_cached_tokens = output.num_cached_tokens;
    if (output.has_token) record.tokens.push_back(output.token_id);
    if (output.prompt_logprobs() != nullptr && record.prompt_logprobs != nullptr)
      return absl::InternalError("the prompt's logprobs came twice");
    if (output.prompt_logprobs() != nullptr) record.prompt_logprobs = output.prompt_logprobs();
    record.finish = output.finish;
    if (record.finish == FinishReason::none) continue;
    if (absl::Status status = check_end(record); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status Simulation::check_logprobs(const Record& record, const ReferenceRun& wanted) const {
  const bool asked = record.request.output.num_prompt_logprobs >= 0;
  if (record.prompt_logprobs == nullptr) {
    const bool given = record.tokens.size() > record.request.resumed_outputs.size();
    if (asked && given) return absl::InternalError("a token came without the prompt's logprobs");
    return absl::OkStatus();
  }
  const PromptLogprobs& got = *record.prompt_logprobs;
  const auto same = [](const TokenLogprob& a, const TokenLogprob& b) {
    return a.token_id == b.token_id && a.logprob == b.logprob;
  };
  if (!asked || got.logprobs != wanted.prompt_logprobs.logprobs ||
      !std::equal(got.top.begin(), got.top.end(), wanted.prompt_logprobs.top.begin(),
                  wanted.prompt_logprobs.top.end(), same))
    return absl::InternalError(
        absl::StrCat("request ", record.request.handle, ": other prompt logprobs than when it runs alone"));
  return absl::OkStatus();
}

absl::Status Simulation::check_end(const Record& record) const {
  ReferenceRun wanted = run_alone(model_config_, record.request);
  if (record.cancelled) {
    if (record.tokens.size() > wanted.tokens.size()) return absl::InternalError("too many tokens");
    wanted.tokens.resize(record.tokens.size());
    wanted.finish = FinishReason::cancelled;
  }
  if (record.tokens != wanted.tokens)
    return absl::InternalError(
        absl::StrCat("request ", record.request.handle, ": other tokens than when it runs alone"));
  if (record.finish != wanted.finish)
    return absl::InternalError(absl::StrCat("request ", record.request.handle, ": finish reason ",
                                            static_cast<int>(record.finish), ", wanted ",
                                            static_cast<int>(wanted.finish)));
  if (absl::Status status = check_logprobs(record, wanted); !status.ok()) return status;
  const size_t most_cached = record.request.prompt.size() - (record.request.resumed_outputs.empty() ? 1 : 0);
  if (record.num_cached_tokens > static_cast<int32_t>(most_cached))
    return absl::InternalError("the whole prompt counts as cached");
  return absl::OkStatus();
}

absl::Status Simulation::drain() {
  // Even one token per step, each preempted by every other, ends by then.
  int64_t patience = 10;
  for (const auto& [handle, record] : records_) {
    if (record.finish == FinishReason::none)
      patience += 4 * static_cast<int64_t>(records_.size()) * config_.max_context_len;
  }
  while (scheduler_.has_work() || !in_flight_.empty()) {
    if (--patience < 0) return absl::InternalError("requests starve");
    if (absl::Status status = step(); !status.ok()) return status;
  }
  if (absl::Status status = step(); !status.ok()) return status;
  for (const auto& [handle, record] : records_) {
    if (record.finish == FinishReason::none)
      return absl::InternalError(absl::StrCat("request ", handle, " never ended"));
  }
  const SchedulerStats stats = scheduler_.stats();
  if (stats.blocks_of_finished != 0 || stats.blocks_free != stats.blocks_total || stats.running != 0 ||
      stats.waiting != 0)
    return absl::InternalError(
        absl::StrCat("all is over, but ", stats.blocks_free, " of ", stats.blocks_total, " blocks are free"));
  if (stats.finished != static_cast<int64_t>(records_.size()))
    return absl::InternalError(absl::StrCat(stats.finished, " ends of ", records_.size(), " requests"));
  return absl::OkStatus();
}

}  // namespace trireme
