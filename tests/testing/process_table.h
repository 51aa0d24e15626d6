#pragma once
// /proc as the tests need it.

#include <sys/types.h>

#include <string>
#include <vector>

namespace trireme::testing {

struct ProcessEntry {
  pid_t pid = 0;
  pid_t parent = 0;
  pid_t session = 0;
  char state = '?';        // R, S, D, T (stopped), Z, ...
  std::string name;        // of the program, cut to 15 characters by the kernel
  double cpu_seconds = 0;  // user and system time so far
};

/// Every process that could be read; those that end meanwhile are left out.
std::vector<ProcessEntry> list_processes();
/// Of one process; state 'X' when it is gone.
ProcessEntry read_process(pid_t pid);
/// The value of an environment variable of a process as it was started; "" when unset or not readable.
std::string environment_of(pid_t pid, const std::string& name);
/// All but zombies that were started, by whatever detour, with this environment variable set to this value.
std::vector<ProcessEntry> processes_with(const std::string& name, const std::string& value);

}  // namespace trireme::testing
