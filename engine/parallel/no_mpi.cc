// Stands in for mpi_group.cc in builds without MPI: a world is one process.

#include <cstdlib>

#include "engine/parallel/process_group.h"

namespace trireme {

std::string message_library() { return "none"; }

absl::StatusOr<std::unique_ptr<HostGroup>> create_world(int*, char***) {
  const char* size = std::getenv("OMPI_COMM_WORLD_SIZE");
  if (size != nullptr && std::atoi(size) > 1) {
    return absl::UnimplementedError(
        "started by mpirun with several ranks, but this build has no MPI (TRIREME_MPI)");
  }
  return create_single_host_group();
}

std::unique_ptr<ProcessGroup> create_mpi_process_group(HostGroup& host) {
  CHECK_EQ(host.size(), 1);
  return create_single_process_group();
}

}  // namespace trireme
