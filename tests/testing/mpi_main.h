#pragma once

#include "engine/parallel/process_group.h"

namespace trireme::testing {

/// This process's world: alone, or what mpirun started. A test binary that links mpi_main.cc runs every case
/// on every rank, and fails when any rank fails.
HostGroup& world();

}  // namespace trireme::testing
