#include "proto/support/collect.h"

namespace trireme::rpc {

bool collect(const v1::GenerateResponse& message, int max_samples, v1::GenerateOnceResponse& result) {
  if (message.has_prompt()) *result.mutable_prompt() = message.prompt();
  if (message.has_usage()) *result.mutable_usage() = message.usage();
  bool known = true;
  for (const v1::Delta& delta : message.deltas()) {
    if (delta.index() < 0 || delta.index() >= max_samples) {
      known = false;
      continue;
    }
    for (int index = result.completions_size(); index <= delta.index(); ++index)
      result.add_completions()->set_index(index);
    v1::Completion& completion = *result.mutable_completions(delta.index());
    completion.mutable_token_ids()->MergeFrom(delta.token_ids());
    completion.mutable_text()->append(delta.text());
    completion.mutable_logprobs()->MergeFrom(delta.logprobs());
    if (delta.has_finish_reason()) completion.set_finish_reason(delta.finish_reason());
  }
  return known;
}

}  // namespace trireme::rpc
