#pragma once
// What the ranks of a job can only find out together, for `trireme doctor`. All collective over the world.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/parallel/clock_alignment.h"
#include "engine/parallel/process_group.h"
#include "trireme/v1/doctor.pb.h"

namespace trireme::client {

/// Every rank tries to open a TCP connection to each of rank 0's addresses, only those in `network` where it
/// is one ("10.0.0.0/24"); what fails goes to facts.unreachable.
absl::Status probe_connections(HostGroup& world, const std::string& network, v1::RankFacts& facts);

/// A pair and what its lower rank measured.
struct PairResult {
  v1::LinkFact link;
  double clock_offset_s = 0;  // the peer's wall clock minus the rank's
  double clock_error_s = 0;   // half the shortest round trip
};

/// Round trips and transfers of 4 MiB between every two ranks, one pair at a time up to 16 ranks. Each pair
/// is in the result of its lower rank.
absl::Status probe_pairs(HostGroup& world, std::vector<PairResult>& results);

/// How the ranks' steady clocks, by which timelines are told, stand to that of rank 0; by rank, on rank 0
/// only.
absl::StatusOr<std::vector<ClockOffset>> probe_timeline_clocks(HostGroup& world);

/// A rank's part of a sum that is known, whole numbers below 2^24 up to some hundreds of ranks: exact in f32
/// in any order.
inline float known_part(int rank, int64_t index) { return static_cast<float>((rank + 1) * (index % 97 + 1)); }
inline float known_sum(int num_ranks, int64_t index) {
  return static_cast<float>(int64_t{num_ranks} * (num_ranks + 1) / 2 * (index % 97 + 1));
}

/// Sums whose results are known, of 1, 1,000 and 300,000 elements; counts the wrong ones in facts.wrong_sums.
void probe_sums(HostGroup& world, v1::RankFacts& facts);

}  // namespace trireme::client
