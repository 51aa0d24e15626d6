#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/device_probe.h"

namespace trireme {

absl::StatusOr<std::unique_ptr<Backend>> create_cuda_backend(const CudaOptions& options) {
  if (options.activation_dtype == DType::i32)
    return absl::InvalidArgumentError("CUDA backend: activations: got i32, wanted f32, f16 or bf16");
  std::vector<std::string> notes;
  const absl::StatusOr<cuda::DeviceFacts> facts = cuda::open_device(options.device, notes);
  if (!facts.ok()) return facts.status();
  if (options.notes != nullptr) options.notes->insert(options.notes->end(), notes.begin(), notes.end());
  const cuda::Device device{options.device,
                            facts->name,
                            facts->major,
                            facts->minor,
                            facts->num_multiprocessors,
                            static_cast<size_t>(facts->max_shared_bytes)};
  return std::make_unique<cuda::CudaBackend>(device, options.activation_dtype);
}

int num_cuda_devices() { return cuda::num_visible_devices(); }

}  // namespace trireme
