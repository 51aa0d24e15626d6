#pragma once
// Memory that NCCL moves fastest. Seen by nccl_group.cc only.

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/tensor.h"

struct ncclComm;

namespace trireme {

/// Memory that can be registered, zeroed. RESOURCE_EXHAUSTED with the bytes.
absl::StatusOr<Buffer> allocate_nccl_memory(Backend& backend, size_t bytes);

/// `memory` of allocate_nccl_memory(), registered with all ranks of the communicator as one symmetric window
/// where hardware, build and library (`version`) can: a collective on tensors at the same offset of each
/// rank's window goes straight to the others' memory. Collective, with the same bytes on every rank. The
/// communicator must outlive what it gives.
absl::StatusOr<Buffer> register_nccl_window(ncclComm* communicator, int version, Buffer memory);

}  // namespace trireme
