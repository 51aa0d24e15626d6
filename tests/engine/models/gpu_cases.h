#pragma once
// How much of the tests of whole models on the CUDA backend is run: all on a device, less where each thread
// of the device is a fiber. Each program has one of gpu_cases_device.cc and gpu_cases_processor.cc.

#include <string>
#include <vector>

namespace trireme::testing {

struct GpuCases {
  std::vector<std::string> references;
  int num_positions;  // of a reference's, from the first on, whose logits are compared
  int num_greedy_tokens;
  int num_random_requests;
  int most_ranks_of_random_requests;
};
const GpuCases& gpu_cases();

}  // namespace trireme::testing
