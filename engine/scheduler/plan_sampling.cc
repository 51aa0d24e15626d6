#include "engine/scheduler/plan_sampling.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace trireme {
namespace {

absl::Status refuse(absl::string_view what, double got, absl::string_view wanted) {
  return absl::InvalidArgumentError(absl::StrCat(what, ": got ", got, ", wanted ", wanted));
}

absl::Status check_ids(const Request& request, int32_t vocab_size) {
  const std::string range = absl::StrCat("in [0, ", vocab_size, ")");
  const auto known = [&](int32_t id) { return id >= 0 && id < vocab_size; };
  for (const auto& [id, bias] : request.sampling.logit_bias) {
    if (!known(id)) return refuse("logit_bias id", id, range);
    if (!std::isfinite(bias)) return refuse(absl::StrCat("logit_bias[", id, "]"), bias, "a finite number");
  }
  for (int32_t id : request.stopping.stop_token_ids) {
    if (!known(id)) return refuse("stop token id", id, range);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status check_sampling(const Request& request, int32_t vocab_size) {
  if (absl::Status ids = check_ids(request, vocab_size); !ids.ok()) return ids;
  const std::set<int32_t> stops(request.stopping.stop_token_ids.begin(),
                                request.stopping.stop_token_ids.end());
  const int32_t num_stops = static_cast<int32_t>(stops.size());
  if (num_stops > kMaxBanned)
    return refuse("stop token ids", num_stops, absl::StrCat("at most ", kMaxBanned));
  if (request.stopping.min_tokens > 0 && num_stops == vocab_size)
    return refuse("min_tokens", request.stopping.min_tokens, "0, since every token of the vocabulary stops");
  const int32_t prompt_tops = request.output.num_prompt_logprobs;
  if (prompt_tops < -1 || prompt_tops > kMaxTopLogprobs)
    return refuse("num_prompt_logprobs", prompt_tops, absl::StrCat("-1 to ", kMaxTopLogprobs));
  SamplingRow row = sampling_row(request.sampling, 0);
  row.num_top_logprobs = request.output.num_top_logprobs;
  return check_sampling_row(row);
}

void append_sampling(const Sequence& sequence, StepPlan& plan) {
  SamplingRow row = sampling_row(sequence.sampling, sequence.num_outputs());
  row.num_top_logprobs = sequence.output.num_top_logprobs;
  for (const auto& [id, bias] : sequence.sampling.logit_bias) {
    plan.bias_ids.push_back(id);
    plan.biases.push_back(bias);
  }
  const std::vector<int32_t>& stops = sequence.stopping.stop_token_ids;
  if (sequence.num_outputs() < sequence.stopping.min_tokens) {
    row.num_banned = static_cast<int32_t>(stops.size());
    plan.banned_ids.insert(plan.banned_ids.end(), stops.begin(), stops.end());
  }
  // A sequence enters its slot with all its tokens known; from the first draw on rank 0 counts by itself.
  if (row.has_penalties() && !sequence.slot_has_token) {
    row.num_history_prompt = sequence.num_prompt_tokens;
    row.num_history_output = sequence.num_outputs();
    plan.history_ids.insert(plan.history_ids.end(), sequence.tokens.begin(), sequence.tokens.end());
  }
  plan.sampling.push_back(row);
}

int32_t append_prompt_logprobs(Sequence& sequence, int32_t begin, int32_t end, StepPlan& plan) {
  const int32_t first = std::max(begin, sequence.num_logprobs_planned);
  const int32_t last = std::min(end, sequence.num_wanted_logprobs());
  if (first >= last) return 0;
  const int32_t token = plan.num_tokens() - (end - begin);
  for (int32_t position = first; position < last; ++position) {
    plan.logprob_tokens.push_back(token + position - begin);
    plan.logprob_targets.push_back(sequence.tokens[position + 1]);
    plan.logprob_tops.push_back(sequence.output.num_prompt_logprobs);
  }
  sequence.num_logprobs_planned = last;
  return last - first;
}

bool take_prompt_logprobs(const StepLogprobs& step, int32_t first, int32_t count, PromptLogprobs& logprobs) {
  for (int32_t i = first; i < first + count; ++i) {
    if (std::isnan(step.prompt_logprobs[i])) return false;
    logprobs.logprobs.push_back(step.prompt_logprobs[i]);
    const int64_t row = int64_t{i} * kMaxTopLogprobs;
    const auto top =
        top_of(step.prompt_top_ids.data() + row, step.prompt_top_logprobs.data() + row, logprobs.num_top);
    logprobs.top.insert(logprobs.top.end(), top.begin(), top.end());
  }
  return true;
}

std::vector<TokenLogprob> top_of(const int32_t* ids, const float* logprobs, int32_t num_top) {
  std::vector<TokenLogprob> top;
  top.reserve(num_top);
  for (int32_t i = 0; i < num_top && ids[i] >= 0; ++i) top.push_back({ids[i], logprobs[i]});
  return top;
}

}  // namespace trireme
