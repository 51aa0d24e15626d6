// The CPU backend.

#include "tests/kernels/backend_fixture.h"

namespace trireme::testing {

std::vector<BackendCase> available_backends() {
  return {{"cpu", [] { return create_cpu_backend({.num_threads = 2}); }},
          {"cpu_3_threads", [] { return create_cpu_backend({.num_threads = 3}); }}};
}

std::vector<BackendCase> backends_of_one_dtype() { return available_backends(); }

bool backends_are_slow() { return false; }

}  // namespace trireme::testing
