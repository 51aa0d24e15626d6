#include "tests/engine/models/gpu_cases.h"
#include "tests/engine/models/reference_model.h"

namespace trireme::testing {

const GpuCases& gpu_cases() {
  static const GpuCases kAll{reference_names(), 4, 64, 1000, 2};
  return kAll;
}

}  // namespace trireme::testing
