#pragma once
// What is wrong with a job, from what its ranks say of themselves: pure functions.

#include <string>

#include "trireme/v1/doctor.pb.h"

namespace trireme::client {

/// Whether an IPv4 address ("10.0.0.7" or with a prefix, "10.0.0.7/24") lies in `network`, "10.0.0.0/24".
/// False for what is no address or no network.
bool in_network(const std::string& address, const std::string& network);

/// Appends to report.findings what its ranks and links show, problems before warnings; `network` is that of
/// --network, CIDR or an interface's name, empty for none. Where ranks differ, those are at fault that are
/// not as most are (as rank 0 is where none are most). A fault of a host is told once, of its first rank.
void judge(const std::string& network, v1::DoctorReport& report);

}  // namespace trireme::client
