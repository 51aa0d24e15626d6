#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/base/request_limits.h"
#include "engine/config.h"
#include "engine/tokenizer/tokenizer.h"

namespace trireme::worker {

/// What a leader's service knows of the model it serves.
struct ServedModel {
  std::string name;
  std::string architecture;
  std::string compute_dtype;  // f32, bf16, f16
  std::string backend;        // cpu, cuda
  int32_t vocab_size = 0;
  int32_t max_context_len = 0;
  int32_t tensor_parallel_size = 1;
  GenerationDefaults defaults;
  std::vector<int32_t> eos_token_ids;    // of config.json and generation_config.json
  const Tokenizer* tokenizer = nullptr;  // none with dummy weights: then text is refused

  RequestLimits request_limits;  // but for vocabulary and context

  RequestLimits limits() const {
    RequestLimits limits = request_limits;
    limits.max_context_len = max_context_len;
    limits.vocab_size = vocab_size;
    return limits;
  }
};

}  // namespace trireme::worker
