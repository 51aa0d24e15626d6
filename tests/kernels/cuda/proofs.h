#pragma once
// Proofs that nothing in a kernel that keeps threads from each other's, or from nobody's, can be left out.
// Each runs `op`, which gives the values it left behind, once for each fault and order of threads.

#include <functional>
#include <string>
#include <vector>

namespace trireme::testing {

/// How calls begin.
using Calls = std::vector<const char*>;
inline const Calls kMeetingCalls = {"__syncthreads(", "__syncwarp(", "wait_for_copies<"};
inline const Calls kMaskCalls = {"mask(", "mask_tail(", "mask_min("};
/// Each source of kernels/cuda that has one of these calls is named in a call of this function of the tests.
void expect_no_source_forgotten(const Calls& calls, const std::string& proof);

/// Leaves out one barrier, or wait for copies, of kernels/cuda/`source` after the other. Each must be
/// noticed: by other values in one of the orders of threads, or by a block that cannot end.
void expect_every_meeting_needed(const std::string& source, const std::function<std::vector<float>()>& op);

/// Leaves out one mask of kernels/cuda/`source` after the other. Each must be noticed: as a barrier, by
/// damage beside a tensor, or, where a mask keeps threads from reading what they have no use for, by a wall
/// behind the tensors. `op` comes to every mask of the source, makes its own DeviceTensors and stays within
/// them.
void expect_every_mask_needed(const std::string& source, const std::function<std::vector<float>()>& op);

}  // namespace trireme::testing
