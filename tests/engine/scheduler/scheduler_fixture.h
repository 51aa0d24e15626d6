#pragma once
// What the tests of the scheduler share: a small configuration, plain requests.

#include <gtest/gtest.h>

#include <numeric>

#include "tests/engine/scheduler/simulation.h"

#define ASSERT_OK(expression)                     \
  do {                                            \
    const absl::Status got_status = (expression); \
    ASSERT_TRUE(got_status.ok()) << got_status;   \
  } while (false)

namespace trireme {

inline constexpr FakeModelConfig kModel{1000, 0};

inline SchedulerConfig small_config() {
  SchedulerConfig config;
  config.max_num_seqs = 4;
  config.max_step_tokens = 16;
  config.max_context_len = 64;
  config.num_blocks = 64;
  config.block_size = 4;
  config.vocab_size = kModel.vocab_size;
  return config;
}

inline Request request_of(int32_t num_prompt_tokens, int32_t max_tokens, int32_t first_token = 0) {
  Request request;
  request.prompt.resize(num_prompt_tokens);
  std::iota(request.prompt.begin(), request.prompt.end(), first_token);
  request.stopping.max_tokens = max_tokens;
  request.sampling.seed = 7;
  return request;
}

}  // namespace trireme
