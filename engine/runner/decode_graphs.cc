#include "engine/runner/decode_graphs.h"

#include <algorithm>

namespace trireme {
namespace {

constexpr int32_t kMostSeqs = 256;
constexpr int32_t kShortContext = 4096;
constexpr int32_t kContextFactor = 8;

int32_t next_num_seqs(int32_t num_seqs) {
  if (num_seqs < 8) return 2 * num_seqs;
  return num_seqs + (num_seqs < 64 ? 8 : num_seqs < 128 ? 16 : 32);
}

}  // namespace

std::vector<DecodeShape> decode_shapes(const StepPlanLimits& limits) {
  const int32_t most_seqs = std::min(limits.max_num_seqs, kMostSeqs);
  std::vector<DecodeShape> shapes;
  for (int32_t num_seqs = 1;; num_seqs = std::min(next_num_seqs(num_seqs), most_seqs)) {
    int64_t context_len = kShortContext;
    for (; context_len < limits.max_context_len; context_len *= kContextFactor)
      shapes.push_back({num_seqs, static_cast<int32_t>(context_len)});
    shapes.push_back({num_seqs, limits.max_context_len});
    if (num_seqs >= most_seqs) return shapes;
  }
}

std::optional<DecodeShape> decode_shape(const StepPlan& plan) {
  if (plan.num_seqs() == 0 || plan.num_tokens() != plan.num_seqs() || plan.num_sampled() != plan.num_seqs() ||
      plan.num_prompt_logprobs() > 0)
    return std::nullopt;
  return DecodeShape{plan.num_seqs(), *std::max_element(plan.context_lens.begin(), plan.context_lens.end())};
}

const DecodeGraphs::Captured* DecodeGraphs::find(const StepPlan& plan) const {
  const std::optional<DecodeShape> shape = decode_shape(plan);
  if (!shape) return nullptr;
  const auto found = std::find_if(all_.begin(), all_.end(), [&](const Captured& captured) {
    return captured.shape.num_seqs >= shape->num_seqs && captured.shape.context_len >= shape->context_len;
  });
  return found == all_.end() ? nullptr : &*found;
}

}  // namespace trireme
