#pragma once
// What the ranks of a job can only find out together, for `trireme doctor`. All collective over the world.

#include <string>
#include <vector>

#include "absl/status/status.h"
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

/// Sums whose results are known, of 1, 1,000 and 300,000 elements; counts the wrong ones in facts.wrong_sums.
void probe_sums(HostGroup& world, v1::RankFacts& facts);

}  // namespace trireme::client
