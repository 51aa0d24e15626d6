#include "engine/backend_choice.h"

#include "absl/strings/str_cat.h"

namespace trireme {

absl::StatusOr<std::unique_ptr<Backend>> choose_backend(const BackendWish& wish,
                                                        std::vector<std::string>& notes) {
  if (wish.backend != "auto" && wish.backend != "cpu" && wish.backend != "cuda") {
    return absl::InvalidArgumentError(
        absl::StrCat("backend: got '", wish.backend, "', wanted auto, cpu or cuda"));
  }
  if (wish.backend != "cpu") {
    CudaOptions options;
    options.device = wish.device;
    options.activation_dtype = wish.compute_dtype;
    options.notes = &notes;
    auto cuda = create_cuda_backend(options);
    if (cuda.ok()) return cuda;
    if (wish.backend == "cuda")
      return absl::Status(cuda.status().code(), absl::StrCat("--backend cuda: ", cuda.status().message()));
    notes.push_back(absl::StrCat("backend auto: the CPU, since ", cuda.status().message()));
  }
  CpuOptions options;
  options.num_threads = wish.num_threads;
  return create_cpu_backend(options);
}

bool shares_host_memory(const Backend& backend) { return backend.name() == "cpu"; }

}  // namespace trireme
