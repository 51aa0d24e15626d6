#pragma once
// What the GPUs of a job's ranks can do together, for `trireme doctor`. Collective over the world.

#include <string>

#include "absl/status/status.h"
#include "engine/parallel/process_group.h"
#include "trireme/v1/doctor.pb.h"

namespace trireme::client {

/// Opens the GPU that a worker in this rank's place would take (place_on_device()), asks whether it reads the
/// memory of the other ranks' GPUs there, and makes sums whose results are known in their memory, over the
/// group that a replica would use. Fills facts.device, and report.devices_skipped, device_collectives and
/// device_error alike on every rank. `backend` is that of --backend: with cpu, and with auto where no rank
/// has a GPU, all is skipped.
absl::Status probe_devices(HostGroup& world, const std::string& backend, v1::RankFacts& facts,
                           v1::DoctorReport& report);

}  // namespace trireme::client
