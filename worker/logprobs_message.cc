#include "worker/logprobs_message.h"

#include "kernels/check.h"

namespace trireme::worker {

void fill_logprobs(TokenLogprob chosen, const TokenLogprob* top, size_t num_top, v1::Logprobs& message) {
  const auto fill = [](const TokenLogprob& from, v1::TokenLogprob& to) {
    to.set_token_id(from.token_id);
    to.set_logprob(from.logprob);
  };
  fill(chosen, *message.mutable_chosen());
  for (size_t i = 0; i < num_top; ++i) fill(top[i], *message.add_top());
}

void fill_prompt_logprobs(const PromptLogprobs& logprobs, v1::PromptInfo& prompt) {
  CHECK_EQ(logprobs.logprobs.size() + 1, static_cast<size_t>(prompt.token_ids_size()));
  const size_t num_top = static_cast<size_t>(logprobs.num_top);
  CHECK_EQ(logprobs.top.size(), logprobs.logprobs.size() * num_top);
  prompt.clear_logprobs();
  prompt.add_logprobs();
  for (size_t i = 0; i < logprobs.logprobs.size(); ++i)
    fill_logprobs({prompt.token_ids(static_cast<int>(i) + 1), logprobs.logprobs[i]},
                  logprobs.top.data() + i * num_top, num_top, *prompt.add_logprobs());
}

}  // namespace trireme::worker
