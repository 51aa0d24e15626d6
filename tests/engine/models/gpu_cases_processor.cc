#include "tests/engine/models/gpu_cases.h"

namespace trireme::testing {

const GpuCases& gpu_cases() {
  // One of each architecture.
  static const GpuCases kFew{{"llama3_rope", "mistral_window", "qwen2", "qwen3"}, 2, 4, 16, 1};
  return kFew;
}

}  // namespace trireme::testing
